"""What is tracked: installs the hooks, now or right after the import of what they sit on."""

from __future__ import annotations

import os
import sys
import threading

from leakguard import _core, _imports, _ledger, _resources
from leakguard._kinds import KINDS, known_kinds, parse_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

_SEEN = ("task", "thread", *(("native_thread",) if _core.HAS_NATIVE_THREADS else ()))
AVAILABLE = tuple(kind for kind in KINDS if kind in _SEEN or kind in _resources.AVAILABLE)
"""The kinds that can be seen on this system."""

# Python's own threads are to be told from the others; executors are seen because of their workers,
# and a pool's processes may be started by its thread.
_WITH_THREADS = frozenset({"native_thread", "executor", "process"})

# What is looked at where a runner or a loop is closed.
_LOST_WITH_LOOP = frozenset({"task", "timer", "asyncgen", "transport", "server"})

_TASK = KINDS.index("task")

DEFAULT_STACK_DEPTH = 64
# About 40,000 distinct stacks of 20 frames; beyond that, stacks that nothing uses are taken out.
_DEPOT_BYTES = 16 * 1024 * 1024

_tracked: set[str] = set()
# Installing is one step for all threads. By process: a child may have been forked in the midst.
_locks: dict[int, threading.RLock] = {}


def mask_of(kinds: Iterable[str]) -> int:
    """The bits of these kinds, as the core counts them."""
    mask = 0
    for kind in kinds:
        mask |= 1 << known_kinds().index(kind)
    return mask


def tracked() -> frozenset[str]:
    """The kinds that are tracked now."""
    return frozenset((*_tracked, *_core.own_kinds())) if _core.is_installed() else frozenset()


def install(
    *, kinds: str | Iterable[str] | None = None, stack_depth: int = DEFAULT_STACK_DEPTH
) -> None:
    """Begin tracking. Idempotent; may be called again to add kinds.

    kinds: a kind or an iterable of kinds; None is tasks and threads.
    stack_depth: how many frames of a creation stack are kept, from the innermost (1 to 1024); the
        first call decides.

    What is alive now is recorded without a creation stack and is never a leak. asyncio and
    concurrent.futures are not imported: if they are loaded they are hooked at once, else right
    after their import.

    Raises ValueError for an unknown kind, one that cannot be seen here, or a depth out of range;
    RuntimeError on a free-threaded build, and outside the main interpreter.
    """
    wanted = parse_kinds(kinds, AVAILABLE)
    if isinstance(stack_depth, bool) or not isinstance(stack_depth, int):
        raise TypeError(f"stack_depth must be an int, not {type(stack_depth).__name__}")
    if not 1 <= stack_depth <= _core.MAX_STACK_DEPTH:
        raise ValueError(f"stack_depth must be 1 to {_core.MAX_STACK_DEPTH}, not {stack_depth}")
    if "t" in getattr(sys, "abiflags", ""):
        raise RuntimeError("leakguard does not support free-threaded builds of CPython yet")
    if "thread" not in wanted and not _WITH_THREADS.isdisjoint(wanted):
        wanted = (*wanted, "thread")
    if "asyncgen" in wanted and "task" not in wanted:
        wanted = (*wanted, "task")  # a generator belongs to the task that iterates over it
    with _lock():
        _install(wanted, stack_depth)


def _lock() -> threading.RLock:
    return _locks.setdefault(os.getpid(), threading.RLock())


def _install(wanted: tuple[str, ...], stack_depth: int) -> None:
    fresh = not _core.is_installed()
    if fresh:
        _tracked.clear()
    elif _tracked.issuperset(wanted):
        return
    _core.install(stack_depth, _DEPOT_BYTES)
    try:
        if "thread" in wanted and "thread" not in _tracked:
            _track_threads()
        if "native_thread" in wanted and "native_thread" not in _tracked:
            _track_natives()
        if "task" in wanted and "task" not in _tracked:
            _track_tasks()
        if not _LOST_WITH_LOOP.isdisjoint(wanted) and _LOST_WITH_LOOP.isdisjoint(_tracked):
            from leakguard import _abandoned

            _abandoned.hook()
        for name in wanted:
            kind = _resources.named(name) if name not in _tracked else None
            if kind is not None:
                kind.hook()
        _tracked.update(wanted)
    except BaseException:
        if fresh:
            uninstall()
        raise


def uninstall() -> None:
    """End tracking: put back every slot and table entry that was replaced, and free all records.

    Without an installation this does nothing. A guard or checkpoint that is left over raises
    RuntimeError at its check.
    """
    with _lock():
        _imports.stop()
        _tracked.clear()
        blocking = sys.modules.get("leakguard._blocking")
        if blocking is not None:
            blocking.clear()
        _core.uninstall()
        _ledger.clear()


def is_installed() -> bool:
    """Whether leakguard is tracking now."""
    return _core.is_installed()


def ensure(kinds: Iterable[str]) -> None:
    """Install, or add kinds, where that has not been done."""
    _imports.catch_up()
    if not _core.is_installed() or not _tracked.issuperset(kinds):
        install(kinds=tuple(kinds))


def ensure_any() -> None:
    """Install where nobody has; where another thread does so now, wait until it has."""
    _imports.catch_up()
    if not _core.is_installed() or not _tracked:
        with _lock():
            if not _core.is_installed():
                install()


def sweep() -> None:
    """End the records of what has ended without a hook of ours: adopted threads, and kinds
    whose end can only be looked for."""
    for ident, run in _core.adopted().items():
        thread = _core.thread_info(run)[1]
        if thread is None or not is_alive(thread):
            _core.end_adopted(ident)
    for name in tuple(_tracked):
        kind = _resources.named(name)
        if kind is not None:
            kind.sweep()


def is_alive(thread: threading.Thread) -> bool:
    """Whether it has not ended. Not by its own method, which a subclass may have filled.

    Thread.is_alive fails for a thread that threading knows by its ident alone (3.11 and 3.12, an
    assertion), or says True for ever: that one is alive as long as threading lists it.
    """
    if isinstance(thread, threading._DummyThread):
        return threading._active.get(thread.ident) is thread  # type: ignore[attr-defined]
    return threading.Thread.is_alive(thread)


def stats() -> dict[str, object]:
    """Exact counters: for each kind created, ended and live; stacks, bytes, dropped.

    created == ended + live at every moment; a task ends here when its object is freed. Every kind
    is always a key; all is zero when nothing is installed.
    """
    if _core.is_installed():
        sweep()
    raw = _core.stats()
    result: dict[str, object] = {
        kind: {"created": created, "ended": ended, "live": created - ended}
        for kind, (created, ended) in zip(known_kinds(), raw.pop("kinds"), strict=True)
    }
    result.update(raw)
    return result


def _track_threads() -> None:
    from leakguard import _executors

    _core.hook_threads(threading.Thread)
    for thread in threading.enumerate():
        if thread.ident is not None:
            _core.adopt_thread(thread, thread.ident)
    _executors.hook()


def _track_natives() -> None:
    _core.hook_natives(
        tuple(thread.native_id for thread in threading.enumerate() if thread.native_id is not None)
    )


def _track_tasks() -> None:
    _imports.after("asyncio.tasks", _hook_asyncio_tasks)


def _hook_asyncio_tasks(tasks: ModuleType) -> None:
    core_task = sys.modules.get("_asyncio")
    pure_task = getattr(tasks, "_PyTask", None)
    if core_task is not None:
        _core.hook_tasks(core_task.Task, pure_task, tasks._current_tasks, core_task)
    if isinstance(pure_task, type):
        own = vars(pure_task)
        born, failed = _core.announcer(_TASK), _core.birth_failed
        init = _core.Hook(own["__init__"], before=born, failed=failed)
        _imports.replace(pure_task, "__init__", init)
        ending = _core.Hook(own["__del__"], before=_core.pure_task_ending)
        _imports.replace(pure_task, "__del__", ending)
    kinds = tuple(
        kind for kind in (getattr(core_task, "Task", None), pure_task) if isinstance(kind, type)
    )
    _core.adopt(_TASK, kinds)
