"""What a case is, and what most of them do: workloads with leakguard and with its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import variants
from figures import Absent, Figure, of_ratios
from harness import FULL, QUICK, QUICK_ROUGH, ROUGH, AbsentError, Effort, Side, compare


@dataclass(frozen=True)
class Options:
    quick: bool = False
    peers: bool = True

    @property
    def effort(self) -> Effort:
        return QUICK if self.quick else FULL

    @property
    def rough(self) -> Effort:
        """For what differs by factors."""
        return QUICK_ROUGH if self.quick else ROUGH


Run = Callable[[Options], Iterator[Figure | Absent]]


@dataclass(frozen=True)
class Case:
    name: str
    what: str  # one line
    run: Run
    left_out: str = ""  # what --quick leaves out of it
    quick: bool = True  # whether --quick has it at all
    quick_seconds: float = 5  # what it takes there


def ratio(
    options: Options, case: str, name: str, workload: str, arguments: Mapping[str, Any],
    variant: str = "leakguard", **more: Any,
) -> Figure | Absent:  # fmt: skip
    """One comparison of a workload with a variant and without it."""
    off, on = (Side(workload, it, arguments) for it in ("off", variant))
    effort = options.rough if variant in variants.PEERS else options.effort
    try:
        return of_ratios(compare(off, on, effort), case, name, **more)
    except AbsentError as error:
        return Absent(case, name, str(error))


def peers(
    options: Options, case: str, workload: str, arguments: Mapping[str, Any], **more: Any
) -> Iterator[Figure | Absent]:
    """The same workload with each of the peers; --quick has the two that cost least."""
    if not options.peers:
        return
    for peer in ("asyncio debug mode", "tracemalloc, 1 frame") if options.quick else variants.PEERS:
        yield ratio(options, case, f"peer: {peer}", workload, arguments, peer, **more)
