"""The await graph: what each live task waits for.

Read from the live objects, at a check. asyncio keeps these links in its own attributes
(`_fut_waiter` of a task, `_children` of a gather, the closures of the callbacks of shield and of
wrap_future) and in the frames of its helpers (`wait`, `TaskGroup.__aexit__`), whose variables are
read as the garbage collector sees them: f_locals would write to the frame on versions before 3.13.
"""

from __future__ import annotations

import gc
import sys
from types import CellType, FunctionType, GeneratorType, MethodType

from leakguard import _core, _stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType
    from typing import Any

_MOST_NESTED = 100  # a gather of a gather of ... that is deeper is a cycle
_ENDS_EARLY = frozenset({"FIRST_COMPLETED", "FIRST_EXCEPTION"})


class Waiting:
    """What one task waits for.

    tasks: those whose end it needs; leaves: the futures that no task stands behind; is_any: whether
    the end of one of them is enough; how: by which of asyncio's means, outermost first; lock: the
    Lock or Semaphore that it wants; place: asyncio's function in which it waits, like `Queue.get`;
    is_timed: whether a timeout of asyncio's will end the wait.
    """

    __slots__ = ("how", "is_any", "is_timed", "leaves", "lock", "place", "tasks")

    def __init__(self, task: Any) -> None:
        self.tasks: list[Any] = []
        self.leaves: list[Any] = []
        self.how: list[str] = []
        self.is_any = False
        self.is_timed = False
        self.lock: Any = None
        self.place: str | None = None
        future = getattr(task, "_fut_waiter", None)
        if not is_future(future):
            return
        chain = [link for link in _stacks.links(getattr(task, "_coro", None)) if link[1]]
        if not self._by_helper(chain, future):
            self._follow(future, _MOST_NESTED)

    def _by_helper(self, chain: list[tuple[Any, FrameType | None, bool]], future: Any) -> bool:
        """Whether a helper of asyncio's waits on the task's behalf, and for what."""
        for place in range(len(chain) - 1, -1, -1):
            link, frame, _ = chain[place]
            if frame is None or not is_asyncio(frame.f_code):
                return False
            name = frame.f_code.co_qualname
            self.place = self.place or name
            read = _HELPERS.get(name) or (_in_group if name.startswith("TaskGroup.") else None)
            caller = chain[place - 1][0] if place else None
            if read is not None and read(self, _Helper(link, caller, future)):
                return True
        return False

    def add(self, how: str, awaited: Iterable[Any] | None, *, is_any: bool = False) -> bool:
        """Note these futures, the done ones left out."""
        self.how.append(how)
        self.is_any = is_any
        for future in tuple(awaited or ()):
            if is_future(future) and not future.done():
                self._follow(future, _MOST_NESTED)
        return True

    def _follow(self, future: Any, depth: int) -> None:
        if hasattr(future, "_coro"):
            self.tasks.append(future)
            return
        children = getattr(future, "_children", None)
        if depth and isinstance(children, list):
            self.how.append("gather")
            for child in children:
                if is_future(child) and not child.done():
                    self._follow(child, depth - 1)
            return
        inner = callback_cell(future, "_outer_done_callback", "inner")
        if depth and is_future(inner):
            self.how.append("shield")
            self._follow(inner, depth - 1)
            return
        source = source_of(future)
        behind = None if source is None else callback_cell(source, "_call_check_cancel", "source")
        if depth and is_future(behind):
            self.how.append("run_coroutine_threadsafe")
            self._follow(behind, depth - 1)
            return
        self.leaves.append(future)


class _Helper:
    """A helper's coroutine: what its variables hold, who called it, and the future it awaits."""

    __slots__ = ("caller", "future", "held")

    def __init__(self, link: Any, caller: Any, future: Any) -> None:
        self.held = tuple(_held(link))
        self.caller = caller
        self.future = future


def _in_wait(waiting: Waiting, helper: _Helper) -> bool:
    held = helper.held
    waiting.is_timed |= any(_is_armed(found) for found in held)
    is_any = any(isinstance(found, str) and found in _ENDS_EARLY for found in held)
    return waiting.add("wait", _first(held, (set, frozenset, list, tuple)), is_any=is_any)


def _in_wait_for(waiting: Waiting, helper: _Helper) -> bool:
    """Up to 3.11 it waits for a future of its own, next to the one that it was given."""
    others = [found for found in helper.held if is_future(found) and found is not helper.future]
    waiting.is_timed |= any(_is_armed(found) for found in helper.held)
    return bool(others) and waiting.add("wait_for", others)


def _in_as_completed(waiting: Waiting, helper: _Helper) -> bool:
    """Up to 3.12 a generator has the set, which lies on the stack of the loop over it; later the
    iterator, whose method it is."""
    iterator = _first(helper.held, _class("tasks", "_AsCompletedIterator"))
    todo = getattr(iterator, "_todo", None)
    waiting.is_timed |= _is_armed(getattr(iterator, "_timeout_handle", None))
    for found in _held(helper.caller) if iterator is None else ():
        if isinstance(found, GeneratorType) and is_asyncio(found.gi_code):
            held = tuple(_held(found))
            todo = _first(held, set)
            waiting.is_timed |= any(_is_armed(one) for one in held)
    return waiting.add("as_completed", todo, is_any=True)


def _in_group(waiting: Waiting, helper: _Helper) -> bool:
    group = _first(helper.held, _class("taskgroups", "TaskGroup"))
    return waiting.add("TaskGroup", getattr(group, "_tasks", None))


def _in_lock(waiting: Waiting, helper: _Helper) -> bool:
    kinds = (_class("locks", "Lock"), _class("locks", "Semaphore"))
    waiting.lock = _first(helper.held, kinds)
    return False


_HELPERS: dict[str, Callable[[Waiting, _Helper], bool]] = {
    "_wait": _in_wait,
    "wait_for": _in_wait_for,
    "_cancel_and_wait": _in_wait_for,
    "as_completed.<locals>._wait_for_one": _in_as_completed,
    "_AsCompletedIterator._wait_for_one": _in_as_completed,
    "Lock.acquire": _in_lock,
    "Semaphore.acquire": _in_lock,
}


def is_future(found: object) -> bool:
    """Whether this is a future or task, by what asyncio itself asks for."""
    return hasattr(type(found), "_asyncio_future_blocking")


def source_of(future: Any) -> Any:
    """The concurrent.futures.Future that an asyncio future follows (wrap_future, and so
    run_in_executor); or None."""
    source = callback_cell(future, "_call_check_cancel", "source")
    return source if hasattr(type(source), "set_running_or_notify_cancel") else None


def callback_cell(future: Any, function: str, variable: str) -> Any:
    """What a callback of a future, one of asyncio's own closures, holds in a variable; or None."""
    callbacks = getattr(future, "_callbacks", None) or getattr(future, "_done_callbacks", None)
    for entry in tuple(callbacks or ()):
        callback = entry[0] if isinstance(entry, tuple) else entry
        code = getattr(callback, "__code__", None)
        if code is None or code.co_name != function or not is_asyncio(code):
            continue
        if variable in code.co_freevars:
            return _contents(callback.__closure__[code.co_freevars.index(variable)])
    return None


def serial_of(resource: Any) -> int:
    """The serial of a recorded object, 0 where it has no record."""
    line = _core.line(resource)
    return line[0] if line else 0


def blocks_of(task: Any) -> Iterator[Any]:
    """The objects whose `async with` block a task is inside, one for each block: those whose
    __aexit__ lies on its stack, those of @asynccontextmanager functions that it is inside too.

    A block that it still waits to enter does not count: its exit lies there already. Nor does a
    condition's while it waits to be notified, for then it has let go of the lock.
    """
    found: list[Any] = []
    chain = list(_stacks.links(getattr(task, "_coro", None)))
    inside = {id(link) for link, _, _ in chain}
    for link, frame, _ in chain:
        found += _blocks_in(link, inside)
        if frame is not None and is_asyncio(frame.f_code):
            if frame.f_code.co_qualname == "Condition.wait":
                condition = _first(_held(link), _class("locks", "Condition"))
                found = [one for one in found if one is not condition]
            elif frame.f_code.co_name == "__aenter__":
                entered = tuple(_held(link))
                for one in reversed(found):
                    if any(it is one for it in entered):
                        found.remove(one)
                        break
    yield from found


def _blocks_in(link: Any, chain: set[int]) -> Iterator[Any]:
    """chain: the ids of the links of the await chain, which are looked into anyhow."""
    before: Any = None
    for found in gc.get_referents(link):
        owner = None
        if isinstance(found, MethodType):
            name = getattr(found.__func__, "__name__", None)
            owner = found.__self__ if name == "__aexit__" else None
        elif isinstance(before, FunctionType) and before.__name__ == "__aexit__":
            owner = found  # from 3.14 on the function and, next to it, the object
        before = found
        if owner is None:
            continue
        manager = _class_in("contextlib", "_AsyncGeneratorContextManager")
        if isinstance(owner, manager) and id(owner.gen) not in chain:
            yield from _blocks_in(owner.gen, chain | {id(owner.gen)})
        yield owner


def is_asyncio(code: CodeType) -> bool:
    """Whether this is code of asyncio itself."""
    module = sys.modules.get("asyncio")
    file = getattr(module, "__file__", None)
    return file is not None and code.co_filename.startswith(file.removesuffix("__init__.py"))


def is_timeout(block: Any) -> bool:
    """Whether this is asyncio.timeout's block, and will end."""
    is_timeout = isinstance(block, _class("timeouts", "Timeout"))
    return is_timeout and _is_armed(getattr(block, "_timeout_handler", None))


def lock_of(block: Any) -> Any:
    """The lock that an `async with` block holds: of a condition the one that it was made with."""
    return block._lock if isinstance(block, _class("locks", "Condition")) else block


def _is_armed(found: Any) -> bool:
    handle = _class("events", "TimerHandle")
    return isinstance(found, handle) and not found.cancelled()


def _class(module: str, name: str) -> Any:
    return _class_in(f"asyncio.{module}", name)


def _class_in(module: str, name: str) -> Any:
    """For isinstance: a class of a module that is loaded, else nothing."""
    return getattr(sys.modules.get(module), name, ())


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _held(link: Any) -> Iterator[Any]:
    """What a suspended coroutine's variables hold."""
    for found in gc.get_referents(link):
        yield _contents(found) if isinstance(found, CellType) else found


def _first(held: Iterable[Any], kind: Any) -> Any:
    for found in held:
        if isinstance(found, kind):
            return found
    return None
