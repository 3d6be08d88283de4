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

_FIRST_REPEAT = 10.0
_LONGEST_REPEAT = 600.0


class ExitWatch:
    """Calls `tell(seconds waited)` when the exit has been held up for `grace` seconds, and again
    at growing intervals."""

    def __init__(self, grace: float, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._start = time.monotonic()
        self._next = self._start + grace
        self._interval = _FIRST_REPEAT
        self._restore: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        self._swap(threading.Thread, "join", self._join())
        internals = vars(threading)
        if "_thread_shutdown" in internals:
            self._swap(threading, "_thread_shutdown", self._thread_shutdown())
        elif "_shutdown_locks" in internals:
            self._swap(threading, "_shutdown_locks", _Locks(internals["_shutdown_locks"], self))

    def __exit__(self, *error: object) -> None:
        for restore in reversed(self._restore):
            restore()

    def _swap(self, owner: Any, name: str, value: Any) -> None:
        original = vars(owner)[name]
        setattr(owner, name, value)
        self._restore.append(lambda: setattr(owner, name, original))

    def pause(self) -> float:
        """How long the next timed wait may be, at most."""
        remaining = self._next - time.monotonic()
        if remaining > 0:
            return remaining
        try:
            self._tell(time.monotonic() - self._start)
        except Exception:
            # The exit goes on, whatever is wrong with the report.
            pass
        self._next = time.monotonic() + self._interval
        self._interval = min(self._interval * 2, _LONGEST_REPEAT)
        return self._next - time.monotonic()

    def _join(self) -> Callable[..., None]:
        original = threading.Thread.join
        main = threading.get_ident()

        def join(self_: threading.Thread, timeout: float | None = None) -> None:
            if timeout is not None or threading.get_ident() != main:
                original(self_, timeout)
                return
            while True:
                original(self_, self.pause())
                if not self_.is_alive():
                    return

        return join

    def _thread_shutdown(self) -> Callable[[], None]:
        original: Callable[[], None] = vars(threading)["_thread_shutdown"]

        def shutdown() -> None:
            while waited_for := _non_daemon_thread():
                # Not its own join, which a subclass may have filled with something else.
                threading.Thread.join(waited_for)
            original()

        return shutdown


def _non_daemon_thread() -> threading.Thread | None:
    here = threading.current_thread()
    main = threading.main_thread()
    for thread in threading.enumerate():
        if thread is not here and thread is not main and not thread.daemon and thread.is_alive():
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
        while not self._lock.acquire(timeout=self._watch.pause()):
            pass
        return True
