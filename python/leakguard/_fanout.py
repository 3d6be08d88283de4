"""Fan-out: whether more were alive at once than allowed, and who created most of them."""

from __future__ import annotations

from leakguard import _core, _describe, _paths, _tracking
from leakguard._findings import Fanout
from leakguard._kinds import known_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_PLACED = "{} births were counted in the peaks, but not by site: too many sites, or no memory"


class Watch:
    """Counts, from here on until `close`, what is born and how much of it is alive at once."""

    __slots__ = ("_limits", "_mark")

    def __init__(self, limits: Mapping[str, int], scope: int) -> None:
        self._limits = limits
        own, library = _paths.foreign_roots()
        self._mark = _core.watermark(_tracking.mask_of(limits), scope, own, library)

    def look(
        self, limits: Mapping[str, int] | None = None
    ) -> tuple[tuple[Fanout, ...], tuple[str, ...]]:
        """What exceeded its limit up to now; sentences on what was not counted.

        limits: other ones for this look; a kind that is not counted has none."""
        found = []
        unplaced = 0
        for kind, limit in (self._limits if limits is None else limits).items():
            if kind not in self._limits:
                continue
            peak, unplaced, sites = self._mark.read(known_kinds().index(kind))
            if peak > limit:
                found.append(_fanout(kind, limit, peak, sites))
        notes = (_NOT_PLACED.format(unplaced),) if unplaced and found else ()
        return tuple(found), notes

    def close(self) -> None:
        """Stop counting."""
        self._mark.close()


def _fanout(kind: str, limit: int, peak: int, sites: tuple[tuple[int, int, int], ...]) -> Fanout:
    """Of the largest site that has a name."""
    context = _describe.Context()
    for stack, share, site_peak in sites:
        creation = context.creation(stack)
        if creation.site is not None:
            return Fanout(
                kind=kind,
                limit=limit,
                peak=peak,
                site=creation.site,
                site_share=share,
                site_peak=site_peak,
                creation=creation.frames,
            )
    return Fanout(kind=kind, limit=limit, peak=peak)
