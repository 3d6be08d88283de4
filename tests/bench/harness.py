"""Compares two variants of one workload in short turns: off, on, off, on, ... , off.

Each variant has a process of its own, which has loaded only what that variant needs and has set
the workload up (the same live tasks, the same stack) before the first turn. The processes wait
while the other one works. A turn takes tens of milliseconds, so that what else goes on in the
machine meets both alike; each turn with leakguard is divided by the mean of the two turns without
around it. How the memory of a process happens to be laid out moves its speed by a percent or so,
so the comparison is made again with fresh pairs of processes until its error is small or its time
is up. The garbage collector stays as Python sets it, in all of them. Both processes of a pair run
on the same single processor.

What is compared is the processor time of the whole process, all its threads included: what other
programs do at the same time is not in it. Something that waits would not show in it either, so the
time by the clock is taken as well, and shown where it says something else. Where waiting is part
of what is measured, the clock is what counts.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
    seconds: float = 15  # after which no further pair of processes begins
    precision: float = 0.003  # the standard error, as a fraction, at which it is enough


FULL = Effort()
ROUGH = Effort(turns=5, least=2, precision=0.03)  # for what differs by factors
QUICK_ROUGH = Effort(turn=0.01, slow_turn=0.05, turns=7, least=1, seconds=0)
QUICK = Effort(turn=0.015, turns=3, least=3, seconds=0)
# For a workload that can be done once in a process only.
ONE_TURN = Effort(turns=1, least=7, seconds=60, precision=0.02)
QUICK_ONE_TURN = Effort(turns=1, least=1, seconds=0)


@dataclass
class Pairs:
    """What a comparison has found."""

    ratios: list[float] = field(default_factory=list)  # on / off, of each turn
    more: list[float] = field(default_factory=list)  # on - off, likewise
    off: list[float] = field(default_factory=list)  # what was measured: as a rule, seconds for one
    on: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)  # of `ratios`, one a pair of processes
    clock: list[float] = field(default_factory=list)  # as `medians`, by the clock

    @property
    def error(self) -> float:
        """The standard error, from pair of processes to pair of processes, as a fraction."""
        if len(self.medians) < 2:
            return float("inf")
        deviation = statistics.stdev(self.medians) / statistics.median(self.medians)
        return deviation / math.sqrt(len(self.medians))


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


class Took(NamedTuple):
    """Seconds for one."""

    wall: float
    processor: float


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

    def turn(self, count: int) -> Took:
        """Does it `count` times."""
        wall, processor = self.ask(count)
        return Took(wall / count, processor / count)

    def ask(self, count: int) -> Any:
        """The same; returns what the workload returns."""
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


def compare(off: Side, on: Side, effort: Effort, by_clock: bool = False) -> Pairs:
    """Compares processor time, or with `by_clock` the time that passes, in seconds for one.

    Raises AbsentError where one of them cannot be had here.
    """
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
            turns = [Turns(a, counts[0], by_clock), Turns(b, counts[1], by_clock)]
            take_turns(turns[0], turns[1], effort.turns, pairs)
            pairs.clock.append(turns[1].median() / turns[0].median())
    return pairs


@dataclass
class Turns:
    """The turns of one worker: calling it is one, which returns the seconds that count."""

    worker: Worker
    count: int
    by_clock: bool
    wall: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        took = self.worker.turn(self.count)
        self.wall.append(took.wall)
        return took.wall if self.by_clock else took.processor

    def median(self) -> float:
        return statistics.median(self.wall)


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
        one = worker.turn(count).wall
        took = one * count
        if took > enough / 4:
            return one
        count *= 2 if took > enough / 32 else 8
