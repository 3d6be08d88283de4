"""Case `memory`: what a record takes, and what is left afterwards.

Bytes do not depend on how busy the machine is: one process with leakguard and one without, one
after the other. "Resident" is the difference between the two in what the system counts; "own" is
what leakguard's allocator has given out, shared stacks and indexes included.
"""

from __future__ import annotations

from collections.abc import Iterator

import work_memory
from cases import Case, Options
from figures import Figure
from harness import Side, Worker

NAME = "memory"
PHASES = (
    work_memory.START,
    work_memory.LIVE,
    work_memory.ENDED,
    work_memory.SOME_IN_A_ROW,
    work_memory.ALL_IN_A_ROW,
)


def memory(options: Options) -> Iterator[Figure]:
    live, row = (100_000, 300_000) if options.quick else (1_000_000, 10_000_000)
    arguments = {"live": live, "in_a_row": row}
    off, on = (run(Side("work_memory:phases", it, arguments)) for it in ("off", "leakguard"))
    start, alive, ended, some, all_of_them = PHASES
    # From the start on: what the import of leakguard takes is not a task's.
    resident = [(b["resident"] - on[0]["resident"]) - (a["resident"] - off[0]["resident"])
                for a, b in zip(off, on, strict=True)]  # fmt: skip
    own = [phase["own"] - on[0]["own"] for phase in on]
    plain = (off[alive]["resident"] - off[start]["resident"]) / live
    note = f"a task itself: {plain:.0f}"
    yield one(f"a live task of {live:,}, own", own[alive] / live, "bytes", 64, note)
    yield one(f"a live task of {live:,}, resident", resident[alive] / live, "bytes", 64, note)
    yield one("left after their end, own", own[ended] / 1024, "KiB")
    yield one("left after their end, resident", resident[ended] / 1024, "KiB")
    grown = f"growth from {row // 10:,} to {row:,} in a row"
    yield one(f"{grown}, own", (own[all_of_them] - own[some]) / 1024, "KiB", 0)
    # Two processes that do the same differ by some pages.
    more = (resident[all_of_them] - resident[some]) / 1024
    yield one(f"{grown}, resident", more, "KiB", 256)


def run(side: Side) -> list[dict[str, int]]:
    with side.start() as worker:
        return [phase(worker, number) for number in PHASES]


def phase(worker: Worker, number: int) -> dict[str, int]:
    held: dict[str, int] = worker.ask(number)
    return held


def one(name: str, value: float, unit: str, budget: float | None = None, note: str = "") -> Figure:
    return Figure(NAME, name, unit, value, value, value, 1, budget=budget, note=note)


CASES = [
    Case(
        NAME,
        "bytes for a live task, after its end, and after many in a row",
        memory,
        "the sizes: it has 100,000 alive and 300,000 in a row, not 1,000,000 and 10,000,000",
    )
]
