"""Cases `thread`, `audit`, `idle`: programs that make no task."""

from __future__ import annotations

from collections.abc import Iterator

from cases import Case, Options, peers, ratio
from figures import Absent, Figure

NATIVE = "leakguard, native stacks"


def thread(options: Options) -> Iterator[Figure | Absent]:
    python, c = "work_plain:thread", "work_plain:c_thread"
    yield ratio(options, "thread", "start and join, Python stacks", python, {}, budget=1.03)
    yield ratio(options, "thread", "start and join, native stacks", python, {}, NATIVE, budget=1.15)
    yield ratio(options, "thread", "of a C library, native stacks", c, {}, NATIVE)
    if not options.quick:
        yield ratio(options, "thread", "peer: tracemalloc, 1 frame", python, {},
                    "tracemalloc, 1 frame")  # fmt: skip


def audit(options: Options) -> Iterator[Figure | Absent]:
    for name, workload in (
        ("open and close a file", "work_plain:open_file"),
        ("logging.info", "work_plain:logging_info"),
        ("sys._getframe", "work_plain:getframe"),
    ):
        yield ratio(options, "audit", name, workload, {}, budget=1.0, within_spread=True)


def idle(options: Options) -> Iterator[Figure | Absent]:
    workload = "work_plain:computation"
    yield ratio(options, "idle", "a Python computation", workload, {},
                budget=1.0, within_spread=True)  # fmt: skip
    if not options.quick:
        yield from peers(options, "idle", workload, {})


CASES = [
    Case("thread", "start and join of a thread", thread, "the peer"),
    Case("audit", "code that CPython audits, and that makes no task and no thread", audit),
    Case("idle", "a pure Python computation", idle, "the peers"),
]
