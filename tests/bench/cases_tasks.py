"""Cases `task`, `taskgroup`, `gather`."""

from __future__ import annotations

from collections.abc import Iterator

from cases import Case, Options, peers, ratio
from figures import Absent, Figure, by_version
from work_tasks import BATCH

DEPTHS = (5, 20, 50)
LIVE = (100, 10_000, 100_000)
FEW = LIVE[0]
PLACES = [*((depth, FEW) for depth in DEPTHS), *((20, live) for live in LIVE[1:])]
QUICK = {
    ("one by one", 5, FEW),
    ("one by one", 20, FEW),
    ("one by one", 50, FEW),
    ("one by one", 20, 10_000),
    ("by hundreds", 20, FEW),
    ("by hundreds", 20, 10_000),
}


def budget(depth: int, live: int) -> float | None:
    if depth != 20:
        return None
    return by_version(1.08, 1.18) if live <= 10_000 else by_version(1.15, 1.20)


def task(options: Options) -> Iterator[Figure | Absent]:
    for way, workload, each in (
        ("one by one", "work_tasks:one_by_one", 1),
        ("by hundreds", "work_tasks:in_batches", BATCH),
    ):
        for depth, live in PLACES:
            if options.quick and (way, depth, live) not in QUICK:
                continue
            yield ratio(
                options, "task", f"depth {depth}, {live:,} others alive, {way}", workload,
                {"depth": depth, "live": live}, budget=budget(depth, live), each=each,
            )  # fmt: skip
    for live in () if options.quick else LIVE[1:]:
        yield ratio(
            options, "task", f"depth 20, {live:,} alive that end at random", "work_tasks:turnover",
            {"depth": 20, "live": live}, budget=budget(20, live), each=BATCH,
        )  # fmt: skip
    yield from peers(options, "task", "work_tasks:one_by_one", {"depth": 20, "live": FEW})


def hundred(name: str) -> Case:
    def run(options: Options) -> Iterator[Figure | Absent]:
        workload, arguments = f"work_tasks:{name}", {"depth": 20}
        limit = by_version(1.06, 1.10)
        yield ratio(options, name, "100 tasks, depth 20", workload, arguments, budget=limit,
                    each=BATCH)  # fmt: skip
        if not options.quick:
            yield from peers(options, name, workload, arguments, each=BATCH)

    return Case(name, f"a {name} of 100 empty coroutines", run, "the peers")


CASES = [
    Case(
        "task",
        "create, await and free an empty coroutine, at several depths, with others alive",
        task,
        "100,000 alive and other combinations, and most of the peers",
        quick_seconds=10,
    ),
    hundred("taskgroup"),
    hundred("gather"),
]
