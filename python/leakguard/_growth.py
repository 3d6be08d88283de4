"""How many resources of each creation site lived at the last checkpoints."""

from __future__ import annotations

import itertools

from leakguard import _core, _describe
from leakguard._kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from leakguard._stacks import Frame

    Site = tuple[str, Frame]  # kind, site
    Counts = dict[Site, int]

_LEAST = 3  # as many moments in a row make a growth
_MOST_LIVE = 20_000  # more are not counted at a checkpoint, which is to be cheap
_KINDS = (1 << _describe.TASK) | (1 << _describe.THREAD)


class History:
    """The counts at the last few moments of one sequence."""

    __slots__ = ("_epoch", "_moments")

    def __init__(self) -> None:
        self._moments: list[Counts] = []
        self._epoch = 0

    def add(self, counts: Counts) -> None:
        """Note one more moment; those of an installation before are forgotten."""
        epoch = _core.mark()[0]
        if epoch != self._epoch:
            self._epoch = epoch
            self._moments = []
        self._moments = [*self._moments[1 - _LEAST :], counts]

    def forget(self) -> None:
        """Begin anew."""
        self._moments = []

    def growth(self, kind: str, site: Frame, now: int | None) -> list[int] | None:
        """The numbers at the last moments, and now where that is still more; None where they have
        not grown from each to the next. now: None where the last moment is now."""
        if len(self._moments) < _LEAST or self._epoch != _core.mark()[0]:
            return None
        numbers = [counts.get((kind, site), 0) for counts in self._moments]
        if now is not None and now < numbers[-1]:
            return None
        if now is not None and now > numbers[-1]:
            numbers.append(now)
        grows = all(after > before for before, after in itertools.pairwise(numbers))
        return numbers if grows else None


process = History()  # of checkpoints and snapshots


def note() -> None:
    """Note this moment in the history of the process."""
    kinds = _core.stats()["kinds"]
    if sum(created - ended for created, ended in kinds) > _MOST_LIVE:
        process.forget()
    else:
        process.add(counts())


def counts() -> Counts:
    """How many tasks and threads of each site live."""
    context = _describe.Context()
    found: Counts = {}
    for (kind, stack), count in _core.count(_KINDS).items():
        site = context.creation(stack).site
        if site is not None:
            name = KINDS[kind]
            found[name, site] = found.get((name, site), 0) + count
    return found
