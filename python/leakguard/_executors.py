"""Pools: which executor a thread is charged to, and when such a thread is left behind.

A pool's worker is charged to its executor, not to the moment at which the pool happened to grow.
"""

from __future__ import annotations

import functools
import sys
import weakref

from leakguard import _core, _imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import Any

# Targets and Thread classes of pool threads, for the core: only for them it asks `_owner`.
_marks: dict[object, bool] = {}
_manager_targets: set[object] = set()
# Executor (by id: it need not be hashable) -> it, and the loop whose default executor it may be:
# the one that ran where it was made, or that it was given to.
_loop_of: dict[int, tuple[weakref.ref[Any], weakref.ref[Any]]] = {}


def hook() -> None:
    """See the birth of every executor and pool, once their modules are loaded."""
    _marks.clear()
    _manager_targets.clear()
    _core.set_pools(_marks, _owner)
    _imports.after("concurrent.futures.thread", _hook_thread_pools)
    _imports.after("concurrent.futures.process", _hook_process_pools)
    _imports.after("multiprocessing.pool", _hook_multiprocessing_pools)
    _imports.after("asyncio.base_events", _hook_default_executors)


def _hook_thread_pools(module: ModuleType) -> None:
    _marks[module._worker] = True
    cls = module.ThreadPoolExecutor
    _hook_births(cls, after=_note_loop)


def _hook_process_pools(module: ModuleType) -> None:
    _marks[module._ExecutorManagerThread] = True
    _manager_targets.add(module._ExecutorManagerThread)
    cls = module.ProcessPoolExecutor
    _hook_births(cls)


def _hook_multiprocessing_pools(module: ModuleType) -> None:
    cls = module.Pool
    for name in ("_handle_workers", "_handle_tasks", "_handle_results"):
        function = getattr(cls.__dict__[name], "__func__", None)
        if function is not None:
            _marks[function] = True
            _manager_targets.add(function)
    _marks[module.worker] = True
    _hook_births(cls)


def _hook_births(cls: Any, after: Callable[..., None] | None = None) -> None:
    born, failed = _core.announcer(_EXECUTOR), _core.birth_failed
    hook = _core.Hook(cls.__init__, before=born, after=after, failed=failed)
    _imports.replace(cls, "__init__", hook)


def _hook_default_executors(module: ModuleType) -> None:
    cls = module.BaseEventLoop
    _imports.replace(
        cls,
        "set_default_executor",
        _core.Hook(cls.set_default_executor, after=_note_default_executor),
    )


def _note_default_executor(loop: Any, executor: Any) -> None:
    _note(executor, loop)


def _note_loop(executor: Any, *args: object, **kwargs: object) -> None:
    events = sys.modules.get("asyncio.events")
    loop = events._get_running_loop() if events is not None else None
    if loop is not None:
        _note(executor, loop)


def _note(executor: Any, loop: Any) -> None:
    key = id(executor)
    gone = weakref.ref(executor, lambda _: _loop_of.pop(key, None))
    _loop_of[key] = (gone, weakref.ref(loop))


def _plain(target: Any) -> Any:
    return getattr(target, "__func__", target)


def _owner(thread: Any) -> Any:
    """The executor that starts this pool thread; None where that cannot be said."""
    reference = getattr(thread, "executor_reference", None)  # the process pool's manager
    if reference is not None:
        return reference()
    args = getattr(thread, "_args", ())
    if args and isinstance(args[0], weakref.ref):  # a thread pool's worker
        return args[0]()
    pool_module = sys.modules.get("multiprocessing.pool")
    if pool_module is None:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        self = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames else None
        if isinstance(self, pool_module.Pool):
            return self
        frame = frame.f_back
    return None


class Charge:
    """To which executor a thread is charged, as seen now."""

    __slots__ = ("executor", "serial")

    def __init__(self, executor: Any, serial: int) -> None:
        self.executor = executor  # None: it is gone
        self.serial = serial  # 0: it was there before tracking began


def charge_of(run: Any, thread: Any) -> Charge | None:
    """The executor's charge for a live thread; None for a thread of no pool."""
    creator = _core.creator(run)
    if creator is not None and creator[0] == _EXECUTOR:
        record = None if creator[2] is None else _core.find(creator[2])
        return Charge(creator[2], 0 if record is not None and record.found else creator[1])
    if thread is None:
        return None
    target = _plain(getattr(thread, "_target", None))
    if _is_marked(target) or type(thread) in _marks:
        return Charge(_owner(thread), 0)
    if creator is not None and creator[2] is not None and _is_manager(creator[2]):
        return charge_of(creator[2], _core.thread_info(creator[2])[1])
    return None


def charge_of_process(child: Any) -> Charge | None:
    """The executor's charge for a worker process; None for one of no pool."""
    creator = _core.creator(child)
    if creator is not None and creator[0] == _EXECUTOR:
        return Charge(creator[2], creator[1])
    if creator is not None and creator[2] is not None and _is_manager(creator[2]):
        return charge_of(creator[2], _core.thread_info(creator[2])[1])
    return None


def why_left(charge: Charge, since: int) -> str | None:
    """Why a pool's worker is a leak; None where its pool may go on."""
    if charge.executor is None:
        return "its executor was collected"
    if is_shut_down(charge.executor):
        return "its executor was shut down"
    return "its executor was never shut down" if charge.serial > since else None


def is_usable(executor: Any) -> bool:
    """Whether an executor exists, and was not told to end."""
    return executor is not None and not is_shut_down(executor)


def pool_of_frame(self: Any) -> Any:
    """The pool whose method this is the `self` of, else None."""
    for module, name in (
        ("concurrent.futures.process", "ProcessPoolExecutor"),
        ("multiprocessing.pool", "Pool"),
    ):
        cls = getattr(sys.modules.get(module), name, None)
        if cls is not None and isinstance(self, cls):
            return self
    return None


_EXECUTOR = 6  # the kind's number in the core


def _is_marked(target: Any) -> bool:
    return getattr(target, "__code__", None) is not None and target in _marks


def _is_manager(run: Any) -> bool:
    """Whether this thread belongs to a pool's machinery: what it starts, the pool starts."""
    if type(run).__name__ != "ThreadRun":
        return False
    thread = _core.thread_info(run)[1]
    target = _plain(getattr(thread, "_target", None))
    if getattr(target, "__code__", None) is not None and target in _manager_targets:
        return True
    return type(thread) in _manager_targets


def is_shut_down(executor: Any) -> bool:
    """Whether an executor was told to end: shutdown(), close() or terminate()."""
    if getattr(executor, "_shutdown", False) or getattr(executor, "_shutdown_thread", False):
        return True
    state = getattr(executor, "_state", None)  # multiprocessing.pool.Pool
    return isinstance(state, str) and state in ("CLOSE", "TERMINATE")


def default_of_live_loop(executor: Any) -> bool:
    """Whether this is the default executor of a loop that is not closed."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return False
    found = _loop_of.get(id(executor))
    born_under = found[1]() if found is not None else None
    for loop in (born_under, events._get_running_loop()):
        if loop is not None and not loop.is_closed() and _is_default(loop, executor):
            return True
    return False


def _is_default(loop: Any, executor: Any) -> bool:
    own = getattr(loop, "_default_executor", None)
    if own is not None:
        return own is executor
    # uvloop keeps it in a C field that only the garbage collector's view shows.
    import gc

    return any(found is executor for found in gc.get_referents(loop))


def is_busy_for(loop: Any, run: Any, thread: Any, frame: Callable[[], FrameType | None]) -> bool:
    """Whether this thread is a worker of the loop's default executor, and inside a call."""
    charge = charge_of(run, thread)
    if charge is None or charge.executor is None or not _is_default(loop, charge.executor):
        return False
    return call_in_worker(frame()) is not None


def is_idle_worker(thread: Any, frame: FrameType | None) -> bool:
    """Whether this is a thread pool's worker that waits for its next call."""
    module = sys.modules.get("concurrent.futures.thread")
    if module is None or getattr(thread, "_target", None) is not module._worker:
        return False
    return frame is not None and call_in_worker(frame) is None


def call_in_worker(frame: FrameType | None) -> Any:
    """What a thread pool's worker is running: the callable, or None when it is idle."""
    item = _item_in_worker(frame)
    return None if item is None else _call_of(item)


def future_in_worker(frame: FrameType | None) -> Any:
    """The concurrent.futures.Future whose call a thread pool's worker is running, or None."""
    return getattr(_item_in_worker(frame), "future", None)


def _item_in_worker(frame: FrameType | None) -> Any:
    module = sys.modules.get("concurrent.futures.thread")
    if module is None:
        return None
    run_code = module._WorkItem.run.__code__
    while frame is not None:
        if frame.f_code is run_code:
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def _call_of(item: Any) -> Any:
    task = getattr(item, "task", None)  # 3.14+: (function, args, kwargs)
    function: Any = task[0] if isinstance(task, tuple) and task else getattr(item, "fn", None)
    # Only a real partial is opened: a Mock answers `func` for ever.
    while isinstance(function, functools.partial):
        inner, args = function.func, function.args
        # asyncio.to_thread runs partial(context.run, function, ...)
        is_context_run = (
            getattr(inner, "__name__", "") == "run"
            and type(getattr(inner, "__self__", None)).__name__ == "Context"
        )
        function = args[0] if is_context_run and args else inner
    return function if function is not None else item
