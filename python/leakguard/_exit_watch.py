"""Notices that the exit of the interpreter waits for threads, without a thread of its own.

The main thread waits in Thread.join (called by concurrent.futures' exit callbacks) and at the end
of threading._shutdown: up to 3.12 in the locks of the non-daemon threads, from 3.13 on in C. While
the watch is on, each of these waits is cut into timed ones: it takes exactly as long.
(Lib/threading.py: _shutdown; Lib/concurrent/futures/thread.py: _python_exit.)
"""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# The class itself: gevent and others put another one in its place.
_Thread = threading.Thread

_FIRST_REPEAT = 10.0
_LONGEST_REPEAT = 600.0


class ExitWatch:
    """Calls `tell` when the exit was held up for `grace` seconds, and again at growing intervals.

    tell: gets the seconds waited, and the thread that an exit callback joins or None."""

    def __init__(self, grace: float, tell: Callable[[float, Any], None]) -> None:
        self._tell = tell
        self._grace = grace
        self._start: float | None = None
        self._next = 0.0
        self._last_phase = False
        self._interval = _FIRST_REPEAT
        self._restore: list[Callable[[], None]] = []

    def begin(self) -> None:
        """From here on the main thread's waits for threads are timed ones."""
        self._swap(_Thread, "join", self._join())
        internals = vars(threading)
        if "_thread_shutdown" in internals:
            self._swap(threading, "_thread_shutdown", self._thread_shutdown())
        elif "_shutdown_locks" in internals:
            self._swap(threading, "_shutdown_locks", _Locks(internals["_shutdown_locks"], self))

    def end(self) -> None:
        """Put back what `begin` replaced."""
        for restore in reversed(self._restore):
            restore()

    def _swap(self, owner: Any, name: str, value: Any) -> None:
        original = vars(owner)[name]
        setattr(owner, name, value)
        self._restore.append(lambda: setattr(owner, name, original))

    def last_phase(self) -> None:
        """The callbacks are done, the main thread has stopped: only now a thread that waits for
        that can end, so the grace begins anew."""
        if not self._last_phase:
            self._last_phase = True
            self._start = None

    def pause(self, joined: threading.Thread | None = None) -> float:
        """How long the next timed wait may be, at most. joined: what a callback waits for."""
        now = time.monotonic()
        if self._start is None:
            # What the program's own callbacks took is no wait for a thread.
            self._start, self._next = now, now + self._grace
        remaining = self._next - now
        if remaining > 0:
            return min(remaining, _LONGEST_REPEAT)
        try:
            self._tell(now - self._start, joined)
        except Exception:
            # The exit goes on, whatever is wrong with the report.
            pass
        self._next = time.monotonic() + self._interval
        self._interval = min(self._interval * 2, _LONGEST_REPEAT)
        return self._next - time.monotonic()

    def _join(self) -> Callable[..., None]:
        original = _Thread.join
        main = threading.get_ident()

        def join(self_: threading.Thread, timeout: float | None = None) -> None:
            if timeout is not None or threading.get_ident() != main:
                original(self_, timeout)
                return
            while True:
                original(self_, self.pause(None if self._last_phase else self_))
                if not _Thread.is_alive(self_):
                    return

        return join

    def _thread_shutdown(self) -> Callable[[], None]:
        original: Callable[[], None] = vars(threading)["_thread_shutdown"]

        def shutdown() -> None:
            self.last_phase()
            while waited_for := _non_daemon_thread():
                # Not its own join, which a subclass may have filled with something else.
                _Thread.join(waited_for)
            original()

        return shutdown


def _non_daemon_thread() -> threading.Thread | None:
    here = threading.current_thread()
    main = threading.main_thread()
    for thread in threading.enumerate():
        # Not its own daemon and is_alive, which a subclass may have filled with something else.
        if thread is here or thread is main or thread._daemonic:  # type: ignore[attr-defined]
            continue
        if _Thread.is_alive(thread):
            return thread
    return None


class _Locks:
    """Stands for threading._shutdown_locks: what it hands out is waited for in timed steps."""

    def __init__(self, locks: Any, watch: ExitWatch) -> None:
        self._locks = locks
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._locks, name)

    def __iter__(self) -> Iterator[_Lock]:
        return iter([_Lock(lock, self._watch) for lock in self._locks])


class _Lock:
    """Equal to the lock it stands for, so that threading finds it in its own set."""

    def __init__(self, lock: Any, watch: ExitWatch) -> None:
        self._lock = lock
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    def __eq__(self, other: object) -> bool:
        return self._lock is (other._lock if isinstance(other, _Lock) else other)

    def __hash__(self) -> int:
        return hash(self._lock)

    def acquire(self) -> bool:
        self._watch.last_phase()
        while not self._lock.acquire(timeout=self._watch.pause()):
            pass
        return True
