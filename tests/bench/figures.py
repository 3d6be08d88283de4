"""What the cases find: one Figure a line, printed, written as JSON, compared with its budget."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from harness import Pairs, quartiles

# From where on the time by the clock is shown beside the processor time.
CLOCK_DIFFERS = 0.02


@dataclass(frozen=True)
class Figure:
    """One measured value. `low` and `high` are the quartiles of the single comparisons."""

    case: str
    name: str
    unit: str  # "ratio": with / without
    value: float
    low: float
    high: float
    count: int  # single comparisons behind it
    budget: float | None = None
    at_least: bool = False  # the budget is the least, not the most
    within_spread: bool = False  # the budget is kept where the quartiles reach it
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "ok", "over", or nothing where there is no budget."""
        if self.budget is None:
            return ""
        best = (self.high if self.at_least else self.low) if self.within_spread else self.value
        kept = best >= self.budget if self.at_least else best <= self.budget
        return "ok" if kept else "over"

    def text(self) -> str:
        spread = "" if self.count == 1 else f"  ({self.show(self.low)} to {self.show(self.high)}"
        spread += f"; {self.count} pairs)" if spread else ""
        line = f"  {self.name:50} {self.show(self.value):>9}{spread}"
        if self.budget is not None:
            line += f"  budget {self.limit()}: {self.verdict}"
        return line + (f"  [{self.note}]" if self.note else "")

    def show(self, value: float) -> str:
        """The value with as many digits as it deserves."""
        if self.unit == "ratio":
            return f"{value:.3f}"
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f} {self.unit}"

    def limit(self) -> str:
        assert self.budget is not None
        sign = "≥" if self.at_least else "≤"
        shown = f"{self.budget:.2f}" if self.unit == "ratio" else f"{self.budget:g} {self.unit}"
        return f"{sign} {shown}" + (" in the spread" if self.within_spread else "")

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Absent:
    """A line without a figure: what is not there, and why."""

    case: str
    name: str
    why: str

    def text(self) -> str:
        return f"  {self.name:50} not measured: {self.why}"

    def to_json(self) -> dict[str, Any]:
        return {"case": self.case, "name": self.name, "absent": self.why}


def of(values: list[float], case: str, name: str, unit: str, **more: Any) -> Figure:
    low, middle, high = quartiles(values)
    return Figure(case, name, unit, middle, low, high, len(values), **more)


def of_ratios(pairs: Pairs, case: str, name: str, each: int = 1, **more: Any) -> Figure:
    """The ratio; the note says what one took without, and what came on top.

    each: how many of them the workload counts as one.
    """
    without = quartiles(pairs.off)[1] / each * 1e6
    added = (quartiles(pairs.ratios)[1] - 1) * without
    note = f"{without:.2f} µs {added:+.2f}"
    if len(pairs.medians) > 1:
        note += f"; {len(pairs.medians)} pairs of processes"
    clock = quartiles(pairs.clock)[1]
    if abs(clock / quartiles(pairs.ratios)[1] - 1) > CLOCK_DIFFERS:
        note += f"; by the clock {clock:.3f}"
    return of(pairs.ratios, case, name, "ratio", **{"note": note, **more})


def by_version(old: float, new: float) -> float:
    """The budget on 3.11 to 3.13, and from 3.14 on, where a task itself costs half."""
    return new if sys.version_info >= (3, 14) else old
