"""Async generators: live from their first iteration until they are exhausted or closed.

One that the garbage collector or the last reference has given to the loop, which closes it within a
few ticks, counts as ended.
"""

from __future__ import annotations

import gc
import sys
from types import AsyncGeneratorType, BuiltinMethodType, FrameType, MethodType

from leakguard import _core, _resources, _stacks
from leakguard._kinds import KINDS
from leakguard._paths import runs_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_TASK = KINDS.index("task")
_METHODS = (MethodType, BuiltinMethodType)


class _AsyncGenerator(_resources.Kind):
    name = "asyncgen"
    lost_at = "runner close"
    why_lost = "nobody closed it before its runner did"
    left_at_exit = True

    def hook(self) -> None:
        _core.adopt(self.number, (AsyncGeneratorType,), _has_begun)
        _core.hook_asyncgens()

    def is_live(self, subject: Any) -> bool:
        return subject.ag_frame is not None and _has_begun(subject)

    def is_left(self, subject: Any) -> bool:
        """Not while it runs, or awaits something; nor while the task that began it lives: then
        that task is the leak, or nothing is."""
        return not subject.ag_running and not _is_begun_by_live_task(subject)

    def is_held(self, subject: Any, memo: dict[str, Any]) -> bool:
        """Whether another live task holds it, or a generator that is told itself."""
        if self.name not in memo:
            memo[self.name] = {id(it) for it in _held() if type(it) is AsyncGeneratorType}
        return id(subject) in memo[self.name]

    def loop_of(self, subject: Any) -> Any:
        """The loop that would close it, which is known by the hook that it took from there."""
        for found in gc.get_referents(subject):
            if isinstance(found, _METHODS) and found.__name__ == "_asyncgen_finalizer_hook":
                return found.__self__
        return None

    def name_of(self, subject: Any) -> str:
        return str(subject.__name__)

    def function_of(self, subject: Any) -> str:
        return str(subject.__qualname__)

    def definition(self, subject: Any) -> Any:
        return subject

    def state(self, subject: Any) -> str | None:
        return "running" if subject.ag_running else "suspended"

    def current(self, subject: Any) -> _stacks.Frames:
        return _stacks.of_task(subject, {})

    def why(self, subject: Any) -> str:
        del subject
        return "it was left at a yield, and nobody closed it: aclose() runs its finally blocks"


def _has_begun(generator: Any) -> bool:
    if generator.ag_running:
        return True
    suspended = getattr(generator, "ag_suspended", None)  # 3.12+
    if suspended is not None:
        return bool(suspended)
    frame = generator.ag_frame
    return frame is not None and frame.f_lasti > _beginning(frame.f_code.co_code)


def _beginning(code: bytes) -> int:
    """Where a generator stands that has not begun."""
    import opcode

    return code[::2].index(opcode.opmap["RETURN_GENERATOR"]) * 2


def _is_begun_by_live_task(generator: Any) -> bool:
    creator = _core.creator(generator)
    if creator is None:
        return False
    if creator[1] in _core.line(None):
        return _is_in_async_for()
    task = creator[2] if creator[0] == _TASK else None
    return task is not None and not task.done()


def _is_in_async_for() -> bool:
    """Whether the code that checks runs in the body of an `async for` of its task: the iterator
    is on a stack that nobody can look at."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not runs_loop(_stacks.of_frame(frame, frame)[0]):
        if frame.f_code.co_flags & 0x280 and _iterates(frame):  # a coroutine or async generator
            return True
        frame = frame.f_back
    return False


def _iterates(frame: FrameType) -> bool:
    import dis

    begins, bodies = set(), []
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.opname == "GET_ANEXT":
            begins.add(instruction.offset)
        elif instruction.opname == "JUMP_BACKWARD" and instruction.argval in begins:
            bodies.append(range(instruction.argval, instruction.offset))
    return any(frame.f_lasti in body for body in bodies)


def _held() -> Iterator[Any]:
    """What the frames of live tasks and of other generators hold: their locals, what they iterate
    over, and the generator behind a context manager."""
    here = next(iter(_core.line(None)), 0)
    for record in _core.live(0, 1 << _TASK):
        if record.serial != here:
            for link, _, _ in _stacks.links(getattr(record.object, "_coro", None)):
                yield from _referents(link)
    for coroutine in _of_trio():
        for link, _, _ in _stacks.links(coroutine):
            yield from _referents(link)
    for record in _core.live(0, 1 << KIND.number):
        if record.object.ag_frame is not None:
            yield from _referents(record.object)


def _of_trio() -> list[Any]:
    """The coroutines of Trio's tasks in this thread, which are no resources of their own, but for
    the one that runs."""
    module = sys.modules.get("trio._core._run")
    context = getattr(module, "GLOBAL_RUN_CONTEXT", None)
    running = getattr(context, "task", None)
    tasks = getattr(getattr(context, "runner", None), "tasks", ())
    return [task.coro for task in tasks if task is not running]


def _referents(owner: Any) -> Iterator[Any]:
    for found in gc.get_referents(owner):
        if isinstance(found, MethodType):
            found = found.__self__
        inner = getattr(found, "gen", None) if type(found).__module__ == "contextlib" else None
        yield found if inner is None else inner


KIND = _AsyncGenerator()
