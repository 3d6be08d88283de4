"""Which creation sites have most alive, for metrics."""

from __future__ import annotations

from leakguard import _core, _describe, _tracking
from leakguard._kinds import known_kinds
from leakguard._text import frame_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def largest_sites(count: int = 10) -> list[tuple[str, str, int]]:
    """(kind, `path:line in function`, how many are alive), most first.

    Costs a look at each live record, once; no stack of a live thing is taken.
    """
    if not _core.is_installed():
        return []
    context = _describe.Context()
    stacks: dict[tuple[int, int], int] = {}
    for record in _core.live(0, _tracking.mask_of(_tracking.tracked())):
        if not record.found:
            key = (record.kind, record.stack)
            stacks[key] = stacks.get(key, 0) + 1
    sites: dict[tuple[str, str], int] = {}
    for (kind, stack), alive in stacks.items():
        site = context.creation(stack).site
        where = "unknown" if site is None else frame_text(site)
        sites[known_kinds()[kind], where] = sites.get((known_kinds()[kind], where), 0) + alive
    ordered = sorted(sites.items(), key=lambda it: (-it[1], it[0]))
    return [(kind, where, alive) for (kind, where), alive in ordered[:count]]


def counters(stats: dict[str, object], name: str) -> Iterable[tuple[str, int]]:
    """(kind, number) of one counter of `leakguard.stats()`: created, ended or live."""
    for kind in known_kinds():
        found = stats[kind]
        if isinstance(found, dict):
            yield kind, found[name]
