"""Cases `limits`, `blocking`, `diagnosis`, `waiting-forever`: what is asked for beyond leaks."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import figures
from cases import Case, Options
from figures import Absent, Figure, of_ratios
from harness import ONE_TURN, QUICK_ONE_TURN, AbsentError, Arguments, Side, compare, quartiles
from work_limits import SHAPES
from work_tasks import BATCH

BLOCKING = "leakguard, blocking"


def limits(options: Options) -> Iterator[Figure | Absent]:
    for way, each in (("one_by_one", 1), ("in_batches", BATCH)):
        name = f"a task, depth 20, {way.replace('_', ' ')}, max_live counted"
        yield added(options, "limits", name, f"work_tasks:{way}", "leakguard, max_live",
                    {"depth": 20, "live": 100}, each)  # fmt: skip
    name = "a task, depth 20, one by one, blocking watched"
    yield added(options, "limits", name, "work_tasks:one_by_one", BLOCKING,
                {"depth": 20, "live": 100})  # fmt: skip


def blocking(options: Options) -> Iterator[Figure | Absent]:
    for loop in ("asyncio", "uvloop"):
        for way, what in (("sleeps", "wakes a task"), ("calls", "makes a call")):
            name = f"an iteration of {loop} that {what}"
            if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
                yield Absent("blocking", name, "uvloop is not installed")
                continue
            yield added(options, "blocking", name, f"work_limits:{way}", BLOCKING,
                        {"uvloop": loop == "uvloop"})  # fmt: skip


def added(
    options: Options, case: str, name: str, workload: str, variant: str, arguments: Arguments,
    each: int = 1,
) -> Figure | Absent:  # fmt: skip
    """What a variant of leakguard costs beside leakguard itself."""
    off, on = (Side(workload, it, arguments) for it in ("leakguard", variant))
    try:
        return of_ratios(compare(off, on, options.effort), case, name, each)
    except AbsentError as error:
        return Absent(case, name, str(error))


def diagnosis(options: Options) -> Iterator[Figure]:
    """Each in a process of its own: the first report is the one that a person waits for."""
    leaks = 10_000
    for shape in ("plain",) if options.quick else SHAPES:
        plain, full = (
            Side("work_limits:diagnosis", "leakguard",
                 {"shape": shape, "leaks": leaks, "causes": causes})
            for causes in (False, True)
        )  # fmt: skip
        name = f"{leaks:,} leaks: {shape.replace('_', ' ')}"
        yield seconds(options, "diagnosis", name, plain, full, "that without causes", 2.0)


def waiting_forever(options: Options) -> Iterator[Figure]:
    arguments = {"objects": 1_000_000, "tasks": 1_000}
    collection = Side("work_limits:collection", "leakguard", arguments)
    marking = Side("work_limits:waiting_forever", "leakguard", arguments)
    yield seconds(options, "waiting-forever", "1,000 tasks among 1,000,000 objects",
                  collection, marking, "a full garbage collection", 5.0)  # fmt: skip


def seconds(
    options: Options, case: str, name: str, other: Side, measured: Side, what: str, budget: float
) -> Figure:
    effort = QUICK_ONE_TURN if options.quick else ONE_TURN
    pairs = compare(other, measured, effort, by_clock=True)
    note = f"{quartiles(pairs.ratios)[1]:.2f} times {what}"
    return figures.of(pairs.on, case, name, "s", budget=budget, note=note)


CASES = [
    Case("limits", "a task while max_live is counted or blocking watched, against leakguard alone",
         limits, quick=False),
    Case("blocking", "an iteration of a loop that is watched, against leakguard alone",
         blocking, quick=False),
    Case("diagnosis", "a check that finds 10,000 leaks, causes included", diagnosis,
         "all shapes but one"),
    Case("waiting-forever", "the proof that tasks wait for ever, among a million objects",
         waiting_forever, quick=False),
]  # fmt: skip
