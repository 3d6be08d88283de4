"""Blocked event loops: who holds a loop up, and where.

The core tells each block in the thread of its loop, before that waits in its selector again. The
task is looked for there and then: a moment later it may be gone.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

from leakguard import _core, _imports, _tracking
from leakguard._findings import Blocked
from leakguard._report import _iso_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from leakguard._report import Frames

    # begin, duration (ns), thread ident, address of the coroutine, of the task, frames, the
    # coroutine's place in them or -1, native frames
    Raw = tuple[int, int, int, int, int, Frames, int, tuple[int, ...]]

_MOST_KEPT = 1000

_open: list[Watch] = []  # the innermost last
_awaited: set[str] = set()  # modules that are hooked right after their import
_prepared: list[bool] = []  # not empty: what cannot be taken back has been done


class Watch:
    """Watches all loops until `close`; each block goes to the innermost watch that it exceeds."""

    __slots__ = (
        "_begun",
        "_blocked",
        "_line",
        "_lost",
        "_pid",
        "_scope",
        "_tell",
        "_thread",
        "limit",
    )

    def __init__(
        self, seconds: float, scope: int, tell: Callable[[Blocked], None] | None = None
    ) -> None:
        """seconds: for which a loop may be away from its selector.
        scope: of the block that is watched: only loops of its thread, and where the task is known,
            only its own task and those of the scope; 0 for the whole process.
        tell: called with each block, in the thread of its loop; then none is kept.

        Raises RuntimeError where what loops wait in is not what is known.
        """
        self.limit = seconds
        self._scope = scope
        self._tell = tell
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        self._blocked: list[Blocked] = []
        self._lost = 0
        _tracking.ensure(("task",))
        self._line = _core.line(None)[:1]
        self._begun = sys.maxsize  # what is cut off at the entry is an outer watch's
        _open.append(self)
        try:
            _prepare()
            _adjust()
        except BaseException:
            self.close()
            raise
        self._begun = _core.blocking_enter()

    def look(self) -> tuple[tuple[Blocked, ...], tuple[str, ...]]:
        """What was blocked for longer than allowed up to now; sentences on what was missed."""
        if self._is_on:
            _core.blocking_enter()  # what this thread's loop does now is told by that
        notes: tuple[str, ...] = ()
        if self._lost:
            notes = (f"{self._lost} more blocks of an event loop were not kept",)
        return tuple(self._blocked), notes

    def close(self) -> None:
        """Stop watching."""
        if self in _open:
            _open.remove(self)
            _adjust()

    @property
    def _is_on(self) -> bool:
        """False in a forked child, and where leakguard was uninstalled."""
        return self._pid == os.getpid() and _core.is_installed()

    def takes(self, raw: Raw) -> bool:
        """Whether this block is to be told here; by what is known without the task."""
        begin, duration, ident = raw[:3]
        is_late = begin >= self._begun and duration > self.limit * 1e9
        return is_late and self._is_on and (not self._scope or ident == self._thread)

    def takes_task(self, record: _core.Record | None) -> bool:
        """Likewise, by its task."""
        if not self._scope or record is None:
            return True
        return record.scope == self._scope or record.serial in self._line

    def add(self, blocked: Blocked) -> None:
        if self._tell is not None:
            self._tell(blocked)
        elif len(self._blocked) < _MOST_KEPT:
            self._blocked.append(blocked)
        else:
            self._lost += 1


def hooks() -> tuple[str, ...]:
    """What can be watched here: the names of what loops wait in. uvloop only where it is loaded."""
    watch = Watch(3600.0, 0)
    try:
        return tuple(_core.blocking_state()[1])
    finally:
        watch.close()


def clear() -> None:
    """Forget all: tracking has ended."""
    _open.clear()
    _awaited.clear()


def _prepare() -> None:
    """Hook what loops wait in."""
    if not _prepared:
        _prepared.append(True)
        atexit.register(_stop)
    _hook_module("select", _core.hook_select)
    _hook_module("uvloop.loop", _core.hook_uvloop)


def _hook_module(name: str, action: Callable[[ModuleType], None]) -> None:
    module = sys.modules.get(name)
    if module is not None:
        action(module)
    elif name not in _awaited:
        _awaited.add(name)
        _imports.after(name, lambda module: action(module) if _open else None)


def _adjust() -> None:
    """Has the core watch as closely as anybody asks."""
    pid = os.getpid()
    _open[:] = [watch for watch in _open if watch._pid == pid]
    if _open and _core.is_installed():
        _core.blocking_start(min(watch.limit for watch in _open), _told)
    else:
        _core.blocking_stop()


def _stop() -> None:
    _open.clear()
    _core.blocking_stop()


def _told(raw: Raw) -> None:
    candidates = [watch for watch in reversed(_open) if watch.takes(raw)]
    if not candidates:
        return
    begin, duration, ident, coroutine, task, frames, place, native = raw
    # Its stack was taken when the smallest bound had passed.
    bound = min(watch.limit for watch in _open)
    record = _record_of(coroutine, task, begin + int(bound * 1e9))
    for watch in candidates:
        if not watch.takes_task(record):
            continue
        name, function = _name_of(record)
        if function is None and place >= 0:
            function = frames[place][2]
        watch.add(
            Blocked(
                duration=duration / 1e9,
                limit=watch.limit,
                time=_iso_time(time.time() - duration / 1e9),
                thread=_thread_name(ident),
                name=name,
                function=function,
                serial=None if record is None else record.serial,
                stack=frames,
                native=_native(native),
            )
        )
        return


def _record_of(coroutine: int, task: int, before: int) -> _core.Record | None:
    """The task at this address, or of the coroutine at this one, done or not. What was born later
    than the stack was taken is another one at the same address."""
    if not coroutine and not task:
        return None
    from leakguard._describe import coroutine_of

    mask = _tracking.mask_of(("task",))
    for done in (False, True):
        for record in _core.live(0, mask, done):
            if record.born > before:
                continue
            if id(record.object) == task or (
                coroutine and id(coroutine_of(record.object)) == coroutine
            ):
                return record
    return None


def _name_of(record: _core.Record | None) -> tuple[str | None, str | None]:
    if record is None:
        return None, None
    from leakguard._describe import coroutine_of, qualname

    coroutine = coroutine_of(record.object)
    return str(record.object.get_name()), None if coroutine is None else qualname(coroutine)


def _native(addresses: tuple[int, ...]) -> tuple[object, ...] | None:
    if not addresses:
        return None
    from leakguard._native import Frames as NativeFrames

    return NativeFrames().stack(addresses)


def _thread_name(ident: int) -> str:
    # current_thread() would make a record of a thread that Python does not know.
    thread = vars(threading)["_active"].get(ident)
    return f"thread {ident}" if thread is None else str(thread.name)


_AT_ONCE = 10
_PAUSE = 60.0  # seconds


class Teller:
    """Watches for as long as the process runs, and has each block reported at once; when that is
    too often, one a minute, with how many there were between."""

    def __init__(
        self, seconds: float, report: Callable[[tuple[Blocked, ...], tuple[str, ...]], None]
    ) -> None:
        """report: called with blocks and sentences."""
        self._report = report
        self._told = 0  # reports, up to _AT_ONCE
        self._last = 0  # when the last one was made
        self._kept: list[Blocked] = []  # the longest one of those that were not reported
        self._more = 0
        self._watch = Watch(seconds, 0, self._add)

    def _add(self, blocked: Blocked) -> None:
        now = _core.now()
        if self._told >= _AT_ONCE and now - self._last < _PAUSE * 1e9:
            self._more += 1
            self._kept = [max([blocked, *self._kept], key=lambda one: one.duration)]
            return
        self._told += self._told < _AT_ONCE
        self._last = now
        self._tell((blocked,))

    def _tell(self, blocked: tuple[Blocked, ...]) -> None:
        notes: tuple[str, ...] = ()
        if self._more:
            longest = self._kept[0].duration
            times = "once more" if self._more == 1 else f"{self._more} more times"
            notes = (f"it was blocked {times} since the last report, {longest:.3f} s at most",)
        self._more = 0
        self._kept.clear()
        self._report(blocked, notes)

    def end(self) -> None:
        """Report what was not, and stop."""
        if self._more:
            self._tell(tuple(self._kept))
        self._watch.close()
