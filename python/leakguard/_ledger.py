"""What checks have to remember: abandoned tasks, and what was reported already.

An abandoned task is a leak whatever becomes of it, so its Leak is kept until no check that it was
born in can ask any more.
"""

from __future__ import annotations

import os
import weakref

from leakguard import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakguard._report import Leak

_LIMIT = 100_000


class Entry:
    """An abandoned task, as it was then."""

    __slots__ = ("leak", "line", "scope")

    def __init__(self, leak: Leak, scope: int, line: frozenset[int]) -> None:
        self.leak = leak
        self.scope = scope
        self.line = line  # of the task and its creators: the serials that are takers of marks


class Mark:
    """A moment that a check asks about.

    taker: the serial of the task or thread whose descendants that check may ask for, or 0.
    keeps: whether that check asks for abandoned tasks, which then are kept while the mark lives.
    is_guard: an open guard's, which will report what was born since.
    """

    __slots__ = (
        "__weakref__",
        "dropped",
        "epoch",
        "is_guard",
        "overflow",
        "pid",
        "serial",
        "taker",
    )

    def __init__(self, *, keeps: bool = True, is_guard: bool = False, taker: int = 0) -> None:
        self.is_guard = is_guard
        self.taker = taker
        self.epoch: int
        self.serial: int
        self.dropped: int
        self.epoch, self.serial, self.dropped = _core.mark()
        self.pid = os.getpid()
        self.overflow = _overflow[0]
        if keeps:
            key = id(self)
            _marks[key] = weakref.ref(self, lambda _: _marks.pop(key, None))
            _core.want_destroyed(True)

    def close(self) -> None:
        """No check asks any more."""
        _marks.pop(id(self), None)
        if not _marks and not _wanted:
            _core.want_destroyed(False)
        _forget()

    @property
    def lost(self) -> int:
        """How many records were dropped since."""
        dropped: int = _core.mark()[2] - self.dropped
        return dropped + _overflow[0] - self.overflow

    def is_quiet(self) -> bool:
        """Whether any look would see nothing: what was born since has ended, nothing was abandoned,
        no record was dropped. False where that takes a closer look."""
        return (
            not _abandoned
            and _overflow[0] == self.overflow
            and _core.is_quiet(self.epoch, self.serial, self.dropped)
            and self.pid == os.getpid()
        )

    def is_untouched(self) -> bool:
        """Whether nothing was born or dropped since: it could have been made now. (What was
        abandoned since was born before.)"""
        return (
            _overflow[0] == self.overflow
            and _core.is_untouched(self.epoch, self.serial, self.dropped)
            and self.pid == os.getpid()
        )

    @property
    def is_current(self) -> bool:
        """False where leakguard was uninstalled since."""
        return _core.is_installed() and _core.mark()[0] == self.epoch


# By identity. A dict is copied at once under the GIL: marks come and go in all threads.
_marks: dict[int, weakref.ref[Mark]] = {}
_abandoned: dict[int, Entry] = {}
_reported: dict[int, object] = {}
_told: list[set[int]] = []
_overflow = [0]
_wanted: list[bool] = []  # not empty: destroyed tasks are asked for, mark or no mark


def oldest() -> int | None:
    """The serial from which on somebody may ask; None where nobody will."""
    return min((mark.serial for mark in _living_marks()), default=None)


def takers() -> set[int]:
    """The serials of those whose descendants a check may ask for."""
    return {mark.taker for mark in _living_marks() if mark.taker}


def _living_marks() -> list[Mark]:
    found = (reference() for reference in list(_marks.values()))
    return [mark for mark in found if mark is not None]


def want_destroyed() -> None:
    """Have tasks that are freed while pending told of from now on, also where no mark is."""
    _wanted[:] = [True]
    _core.want_destroyed(True)


def abandon(leak: Leak, scope: int, line: frozenset[int], limit: int = _LIMIT) -> None:
    """Keep an abandoned task for the checks that may ask for it; one that would be more than
    `limit` is counted only."""
    first = oldest()
    if first is None or leak.serial <= first:
        return
    if len(_abandoned) >= limit:
        overflow()
        return
    _abandoned[leak.serial] = Entry(leak, scope, line)


def overflow() -> None:
    """Count one that could not be kept: no check since says "clean"."""
    _overflow[0] += 1


def is_abandoned(serial: int) -> bool:
    return serial in _abandoned


def since(serial: int) -> Iterator[Entry]:
    """Abandoned tasks born after `serial`."""
    if _abandoned:
        for entry in list(_abandoned.values()):
            if entry.leak.serial > serial:
                yield entry


def is_guarded(serial: int) -> bool:
    """Whether an open guard will report this resource."""
    return any(mark.is_guard and mark.serial < serial for mark in _living_marks())


def report(leaks: list[Leak], asker: object) -> None:
    """Note that `asker` has acted on these: each resource is reported once."""
    for leak in leaks:
        _reported.setdefault(leak.serial, asker)
    for store in _told:
        store.update(leak.serial for leak in leaks)


def tell(store: set[int]) -> None:
    """Have the serials of all that is reported from now on added to `store`."""
    _told.append(store)


def is_reported(serial: int, asker: object) -> bool:
    """Whether somebody else has acted on it. A look (asker None) is not put off."""
    return asker is not None and _reported.get(serial, asker) is not asker


def clear() -> None:
    """Forget all: tracking has ended."""
    _abandoned.clear()
    _reported.clear()


def _forget() -> None:
    if not _abandoned and not _reported:
        return
    first = oldest()
    for store in (_abandoned, _reported):
        for serial in list(store):
            if first is None or serial <= first:
                store.pop(serial, None)
