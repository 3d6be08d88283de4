"""Case `check`: what a clean block costs, and a report of many leaks."""

from __future__ import annotations

from collections.abc import Iterator

import figures
from cases import Case, Options
from figures import Absent, Figure
from harness import ONE_TURN, QUICK_ONE_TURN, AbsentError, Pairs, Side, compare, quartiles

NAME = "check"
TASK = Side("work_tasks:one_by_one", "off", {"depth": 5, "live": 0})


def guard(live: int) -> Side:
    return Side("work_check:guard", "leakguard", {"live": live})


def check(options: Options) -> Iterator[Figure | Absent]:
    yield from clean(options)
    older = 10_000 if options.quick else 1_000_000
    pairs = compare(guard(0), guard(older), options.effort, by_clock=True)
    yield microseconds(pairs, f"clean guard, {older:,} older tasks alive", "that with none alive",
                       budget=10.0)  # fmt: skip
    yield figures.of(pairs.ratios, NAME, "the same, against none alive", "ratio", budget=1.05)
    yield from report(options)


def clean(options: Options) -> Iterator[Figure | Absent]:
    pairs = compare(TASK, guard(0), options.effort, by_clock=True)
    yield microseconds(pairs, "clean guard", "a task without leakguard", budget=10.0)
    pairs = compare(
        TASK, Side("work_check:async_guard", "leakguard"), options.effort, by_clock=True
    )
    yield microseconds(pairs, "clean async guard", "a task without leakguard", budget=10.0)
    if not options.peers:
        return
    name = "peer: pyleak, clean async block"
    try:
        pairs = compare(
            TASK, Side("work_check:pyleak_block", "pyleak"), options.rough, by_clock=True
        )
        yield microseconds(pairs, name, "a task without anything")
    except AbsentError as error:
        yield Absent(NAME, name, str(error))


def microseconds(pairs: Pairs, name: str, other: str, budget: float | None = None) -> Figure:
    """Of what was measured, beside what it was compared with."""
    note = f"{quartiles(pairs.ratios)[1]:.2f} times {other}"
    return figures.of([it * 1e6 for it in pairs.on], NAME, name, "µs", budget=budget, note=note)


def report(options: Options) -> Iterator[Figure]:
    """Each in a process of its own: the first report is the one that a person waits for."""
    leaks = 100_000
    arguments = {"leaks": leaks}
    pairs = compare(
        Side("work_check:by_hand", "off", arguments),
        Side("work_check:report", "leakguard", arguments),
        QUICK_ONE_TURN if options.quick else ONE_TURN,
        by_clock=True,
    )
    note = f"{quartiles(pairs.ratios)[1]:.2f} times Task.print_stack() of each"
    yield figures.of(pairs.on, NAME, f"{leaks:,} leaks of 10 sites, found and as text", "s",
                     budget=1.0, note=note)  # fmt: skip


CASES = [
    Case(
        NAME,
        "a clean block, with and without older tasks; a report of 100,000 leaks",
        check,
        "1,000,000 older tasks (it has 10,000), and all but one report",
        quick_seconds=10,
    )
]
