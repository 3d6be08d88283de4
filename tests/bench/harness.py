"""Compares two variants of one workload in short turns: off, on, off, on, ... , off.

Each variant has a process of its own, which has loaded only what that variant needs and has set
the workload up (the same live tasks, the same stack) before the first turn. The processes wait
while the other one works. A turn takes tens of milliseconds, so that what else goes on in the
machine meets both alike; each turn with leakguard is divided by the mean of the two turns without
around it. How the memory of a process happens to be laid out moves its speed by a percent or so,
so the comparison is made again with fresh pairs of processes until its error is small or its time
is up. The garbage collector stays as Python sets it, in all of them. Both processes of a pair run
on the same single processor.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

CPUS = sorted(os.sched_getaffinity(0))
WORK_CPU = CPUS[-1]
OTHER_CPU = CPUS[0]

Arguments = Mapping[str, Any]


class AbsentError(Exception):
    """A variant that cannot be had here; the text says why."""


@dataclass(frozen=True)
class Effort:
    """How long a comparison goes on."""

    turn: float = 0.025  # seconds a turn should take
    slow_turn: float = 0.15  # seconds that a turn of a slow variant may take
    turns: int = 15  # with leakguard, in one pair of processes
    least: int = 5  # pairs of processes
    seconds: float = 20  # after which no further pair of processes begins
    precision: float = 0.003  # the standard error, as a fraction, at which it is enough


FULL = Effort()
ROUGH = Effort(turns=5, least=2, precision=0.03)  # for what differs by factors
QUICK = Effort(turn=0.015, turns=3, least=3, seconds=0)
# For a workload that can be done once in a process only.
ONE_TURN = Effort(turns=1, least=7, seconds=60, precision=0.02)
QUICK_ONE_TURN = Effort(turns=1, least=3, seconds=0)


@dataclass
class Pairs:
    """What a comparison has found."""

    ratios: list[float] = field(default_factory=list)  # on / off, of each turn
    more: list[float] = field(default_factory=list)  # on - off, likewise
    off: list[float] = field(default_factory=list)  # what was measured: as a rule, seconds for one
    on: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)  # of `ratios`, one a pair of processes

    @property
    def error(self) -> float:
        """The standard error, from pair of processes to pair of processes, as a fraction."""
        if len(self.medians) < 2:
            return float("inf")
        deviation = statistics.stdev(self.medians) / statistics.median(self.medians)
        return deviation / float(len(self.medians)) ** 0.5


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The lower quartile, the median, the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """What is started in the block runs on this processor only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clean_environment(**more: str) -> dict[str, str]:
    """This one, without what would switch something on."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LEAKGUARD", "PYTHON", "PYTEST"))
    }
    return {**kept, **more}


class Worker:
    """A process that has a workload ready, in one variant, and does it when told to."""

    def __init__(self, workload: str, arguments: Arguments, variant: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the worker
        self._what = f"{workload} {dict(arguments)}, {variant}"
        command = [
            sys.executable,
            str(HERE / "worker.py"),
            workload,
            json.dumps(arguments),
            variant,
        ]
        with on_cpu(WORK_CPU):
            self._process = subprocess.Popen(
                command, env=clean_environment(), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            )  # fmt: skip
        try:
            answer = self._answer()
            if "absent" in answer:
                raise AbsentError(answer["absent"])
        except BaseException:
            self.close()
            raise

    def turn(self, count: int) -> Any:
        """Does it `count` times; returns the seconds that took, or what the workload returns."""
        assert self._process.stdin is not None
        print(count, file=self._process.stdin, flush=True)
        return self._answer()["result"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(
                f"the worker for {self._what} ended with {self._process.returncode}:\n"
                f"{self._errors.read()}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    workload: str  # module:function
    variant: str
    arguments: Arguments = field(default_factory=dict)

    def start(self) -> Worker:
        return Worker(self.workload, self.arguments, self.variant)


def compare(off: Side, on: Side, effort: Effort) -> Pairs:
    """Raises AbsentError where one of them cannot be had here."""
    pairs = Pairs()
    counts: tuple[int, int] | None = None
    began = time.monotonic()
    while len(pairs.medians) < effort.least or (
        pairs.error > effort.precision and time.monotonic() - began < effort.seconds
    ):
        # Which of them is set up first takes turns as well.
        first, second = (off, on) if len(pairs.medians) % 2 == 0 else (on, off)
        with first.start() as one, second.start() as two:
            a, b = (one, two) if first is off else (two, one)
            if effort.turns == 1:
                counts = (1, 1)
            elif counts is None:
                counts = calibrate(a, b, off.workload == on.workload, effort)
            else:
                a.turn(counts[0])
                b.turn(counts[1])
            take_turns(partial(one_turn, a, counts[0]), partial(one_turn, b, counts[1]),
                       effort.turns, pairs)  # fmt: skip
    return pairs


def one_turn(worker: Worker, count: int) -> float:
    seconds: float = worker.turn(count)
    return seconds / count


def take_turns(off: Callable[[], float], on: Callable[[], float], turns: int, pairs: Pairs) -> None:
    """Measures off, on, off, on, ... , off; of one turn, off and on."""
    ratios = []
    before = off()
    pairs.off.append(before)
    for _ in range(turns):
        value = on()
        after = off() if turns > 1 else before
        around = (before + after) / 2
        pairs.on.append(value)
        pairs.off += [after] if turns > 1 else []
        pairs.more.append(value - around)
        ratios.append(value / around)
        before = after
    pairs.ratios += ratios
    pairs.medians.append(statistics.median(ratios))


def calibrate(off: Worker, on: Worker, same: bool, effort: Effort) -> tuple[int, int]:
    """How often to do it in a turn. The same number on both sides where it is the same work."""
    fast, slow = (one_takes(worker, effort.turn) for worker in (off, on))
    if not same:
        return max(1, round(effort.turn / fast)), max(1, round(effort.turn / slow))
    count = max(1, round(min(effort.turn / fast, effort.slow_turn / slow)))
    return count, count


def one_takes(worker: Worker, enough: float) -> float:
    """Seconds for one; warms the worker up."""
    count = 1
    while True:
        took: float = worker.turn(count)
        if took > enough / 4:
            return took / count
        count *= 2 if took > enough / 32 else 8
