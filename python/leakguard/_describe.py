"""Turns a record of the core and the live object behind it into a Leak."""

from __future__ import annotations

import threading

from leakguard import _core, _executors, _stacks
from leakguard._kinds import KINDS
from leakguard._report import Creator, Leak

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

TASK = KINDS.index("task")
THREAD = KINDS.index("thread")

_STARTING, _RUNNING, _ENDED = range(3)


class Context:
    """What several descriptions made at one moment share."""

    def __init__(self) -> None:
        self._creations: dict[int, _stacks.Creation] = {}
        self._threads: dict[int, FrameType] | None = None
        self.now: int = _core.now()

    def forget_frames(self) -> None:
        """Let go of the threads' frames: they hold this object, and all locals of the program."""
        self._threads = None

    def creation(self, stack: int) -> _stacks.Creation:
        found = self._creations.get(stack)
        if found is None:
            found = self._creations[stack] = _stacks.Creation(stack)
        return found

    @property
    def threads(self) -> dict[int, FrameType]:
        """Thread ident -> innermost frame, taken at the first use."""
        if self._threads is None:
            self._threads = _stacks.current_frames()
        return self._threads


class Resource:
    """One live resource at one look: what rules and verdicts ask for, found out when asked."""

    __slots__ = ("_context", "_function", "_info", "object", "record")

    def __init__(self, record: Any, context: Context) -> None:
        self.record = record
        self.object: Any = record.object
        self._context = context
        self._info: tuple[Any, Any, str | None, int, int] | None = None
        self._function: str | None = None

    @property
    def kind(self) -> str:
        kind: str = KINDS[self.record.kind]
        return kind

    @property
    def serial(self) -> int:
        serial: int = self.record.serial
        return serial

    @property
    def info(self) -> tuple[Any, Any, str | None, int, int]:
        """Of a thread: (function, Thread or None, label, ident, state)."""
        if self._info is None:
            self._info = _core.thread_info(self.object)
        return self._info

    @property
    def thread(self) -> Any:
        return self.info[1]

    @property
    def coroutine(self) -> Any:
        return coroutine_of(self.object)

    @property
    def name(self) -> str:
        if self.record.kind == TASK:
            return str(self.object.get_name())
        if self.record.kind == THREAD:
            return thread_name(self.info)
        return type(self.object).__name__

    @property
    def function(self) -> str:
        if self._function is None:
            if self.record.kind == TASK:
                self._function = qualname(self.coroutine)
            elif self.record.kind == THREAD:
                self._function = self._thread_function()
            else:
                self._function = type(self.object).__qualname__
        return self._function

    def _thread_function(self) -> str:
        _, thread, label, _, _ = self.info
        call = None
        if label == "_worker":
            call = _executors.call_in_worker(self.current_frame())
        if call is not None:
            return qualname(call)
        if label is not None:
            return label
        return thread_function(thread)

    @property
    def made_by_loop(self) -> bool:
        """Whether no line of the program, run by the loop, created it."""
        return self._context.creation(self.record.stack).site is None

    @property
    def is_main(self) -> bool:
        """Whether Runner.run made it, to run the coroutine that it was given."""
        return self._context.creation(self.record.stack).made_by_run

    def current_frame(self) -> FrameType | None:
        """Of a thread: its innermost frame now."""
        return self._context.threads.get(self.info[3])

    @property
    def site(self) -> tuple[_stacks.Frame | None, bool]:
        """The site, and whether it is a definition."""
        site = self._context.creation(self.record.stack).site
        if site is not None or self.record.found:
            return site, False
        defined = self._definition()
        if defined is not None:
            return defined, True
        frames = self._context.creation(self.record.stack).frames
        return (frames[-1] if frames else None), False

    def _definition(self) -> _stacks.Frame | None:
        if self.record.kind == TASK:
            return _stacks.definition(self.coroutine)
        if self.record.kind == THREAD:
            function, thread, label = self.info[:3]
            if label == "_worker":
                call = _executors.call_in_worker(self.current_frame())
                if call is not None:
                    return _stacks.definition(call)
            target = getattr(thread, "_target", None) if thread is not None else function
            return _stacks.definition(target if target is not None else type(thread).run)
        return None

    @property
    def state(self) -> str:
        if self.record.kind == TASK:
            return self._task_state()
        return "starting" if self.info[4] == _STARTING else "running"

    def _task_state(self) -> str:
        coroutine = self.coroutine
        for prefix in ("cr", "gi"):
            if not hasattr(coroutine, f"{prefix}_frame"):
                continue
            if getattr(coroutine, f"{prefix}_running"):
                return "running"
            suspended = getattr(coroutine, f"{prefix}_suspended", True)
            begun = suspended or getattr(coroutine, f"{prefix}_frame") is None
            return "waiting" if begun else "pending"
        return "waiting"

    def current(self) -> _stacks.Frames:
        """Where it is now, outermost first."""
        if self.record.kind == TASK:
            return _stacks.of_task(self.coroutine, self._context.threads)
        return _stacks.of_frame(self.current_frame())

    def leak(self, *, state: str | None = None, why: str = "") -> Leak:
        """A Leak of what is seen now."""
        try:
            return self._whole_leak(state, why)
        except Exception as error:
            # A property of the program's own class raised: the leak is reported all the same.
            return self._bare_leak(error)

    def _bare_leak(self, error: Exception) -> Leak:
        creation = self._context.creation(self.record.stack)
        return Leak(
            kind=self.kind,
            serial=self.serial,
            name=None,
            function=type(self.object).__qualname__,
            state=None,
            age=max(0.0, (self._context.now - self.record.born) / 1e9),
            creation=creation.frames,
            site=creation.site,
            why=f"it could not be described: {type(error).__name__} in the program's own code",
        )

    def _whole_leak(self, state: str | None, why: str) -> Leak:
        site, is_definition = self.site
        return Leak(
            kind=self.kind,
            serial=self.serial,
            name=self.name,
            function=self.function,
            state=state or self.state,
            age=max(0.0, (self._context.now - self.record.born) / 1e9),
            creation=self._context.creation(self.record.stack).frames,
            current=self.current(),
            site=site,
            site_is_definition=is_definition,
            creator=creator_of(self.object),
            why=why,
        )


def coroutine_of(task: Any) -> Any:
    """A task's coroutine, None where it has let go of it.

    Not get_coro(): early 3.12 releases crash there once an eager task has ended.
    """
    return getattr(task, "_coro", None)


def qualname(callable_: Any) -> str:
    """The __qualname__ of what is run (of a partial: what it wraps), else its type's name."""
    return _core.function_name(callable_)


def thread_name(info: tuple[Any, Any, str | None, int, int]) -> str:
    """A Thread's name; for a raw thread one made of its ident."""
    thread = info[1]
    return str(thread.name) if thread is not None else f"raw-thread-{info[3]}"


def thread_function(thread: Any) -> str:
    """What a Thread runs: its overridden run, else its target, else its class."""
    if thread is None:
        return "unknown"
    if type(thread).run is not threading.Thread.run:
        return qualname(type(thread).run)
    target = getattr(thread, "_target", None)
    return qualname(target) if target is not None else type(thread).__qualname__


def creator_of(resource: Any) -> Creator | None:
    """The creator of a recorded object, also where it has ended."""
    raw = _core.creator(resource)
    if raw is None:
        return None
    kind, serial, living, name, function, ended = raw
    if living is not None:
        lost, (name, function, ended) = function, _living_creator(kind, living)
        function = lost or function
    return Creator(KINDS[kind], serial, name, function or "unknown", ended)


def _living_creator(kind: int, living: Any) -> tuple[str, str, str | None]:
    if kind == TASK:
        return str(living.get_name()), qualname(coroutine_of(living)), how_ended(living)
    if kind == THREAD:
        info = _core.thread_info(living)
        return thread_name(info), info[2] or thread_function(info[1]), None
    return type(living).__name__, type(living).__qualname__, None


def how_ended(task: Any) -> str | None:
    """returned, cancelled, raised; None while it lives.

    `_exception` is read: exception() would mark it as retrieved.
    """
    if not task.done():
        return None
    if task.cancelled():
        return "cancelled"
    return "raised" if getattr(task, "_exception", None) is not None else "returned"
