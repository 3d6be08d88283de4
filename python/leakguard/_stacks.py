"""Stacks of live things as tuples of (file, line, function), and the site in them."""

from __future__ import annotations

import functools
import sys
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
)

from leakguard._paths import is_foreign, runs_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType
    from typing import Any

Frame = tuple[str, int, str]
Frames = tuple[Frame, ...]

_ABSENT = object()
_CODE_ATTRIBUTES = (
    (FunctionType, "__code__"),
    (CoroutineType, "cr_code"),
    (GeneratorType, "gi_code"),
    (AsyncGeneratorType, "ag_code"),
)
_CHAIN_LIMIT = 10_000  # a chain of awaits that is longer is a cycle


class Creation:
    """A creation stack, and the site that it tells."""

    __slots__ = ("frames", "made_by_run", "site")

    def __init__(self, frames: Frames, inner: int) -> None:
        """inner: how many, from the innermost, lie inside the running loop."""
        self.frames = frames
        inside, self.made_by_run = _inside_loop(frames, inner)
        self.site = innermost_own(inside)


def _inside_loop(frames: Frames, inner: int) -> tuple[Frames, bool]:
    """Without the frames that were on the stack when the loop began to run: they only say that it
    runs. `inner` tells how many are inside; of a loop that ran before tracking began, the core
    knows nothing. And whether this is the main task of a Runner.run."""
    if inner < len(frames):
        return frames[len(frames) - inner :], False
    for place in range(len(frames) - 1, -1, -1):
        if runs_loop(frames[place]):
            inside = frames[place + 1 :]
            # Runner.run makes the main task before its loop runs. (Inside a loop that is written
            # in C its frame is the innermost one that says so.)
            is_made_before = frames[place][2].endswith(".run") and (
                not inside or inside[0][0].endswith("base_events.py")
            )
            return (frames, True) if is_made_before else (inside, False)
    return frames, False


def innermost_own(frames: Frames) -> Frame | None:
    """The innermost frame outside leakguard and the standard library."""
    for frame in reversed(frames):
        if not is_foreign(frame[0]):
            return frame
    return None


def definition(function: Any) -> Frame | None:
    """Where a function, coroutine or generator is defined; None where only C knows."""
    code = code_of(function)
    return None if code is None else (code.co_filename, code.co_firstlineno, code.co_qualname)


def code_of(function: Any) -> CodeType | None:
    """The code behind a function, method, partial, coroutine or generator.

    By type: an attribute of just any callable may be anything, and asking for it run code.
    """
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        else:
            break
    for kind, name in _CODE_ATTRIBUTES:
        if isinstance(function, kind):
            code: CodeType = getattr(function, name)
            return code
    call = type(function).__dict__.get("__call__")
    return call.__code__ if isinstance(call, FunctionType) else None


def of_frame(frame: FrameType | None, until: FrameType | None = None) -> Frames:
    """The stack that ends in `frame`, outermost first, from `until` inward if that is on it."""
    frames: list[Frame] = []
    while frame is not None:
        code = frame.f_code
        frames.append((code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        if frame is until:
            break
        frame = frame.f_back
    return tuple(reversed(frames))


def of_task(coroutine: Any, threads: dict[int, FrameType]) -> Frames:
    """Where a task waits: the frames of its whole await chain, outermost first.

    threads: sys._current_frames(), for a task that is running now.
    """
    frames: list[Frame] = []
    for _, frame, running in links(coroutine):
        if running and frame is not None:
            return tuple(frames) + _running_part(frame, threads)
        if frame is not None:
            code = frame.f_code
            line = frame.f_lineno or code.co_firstlineno
            frames.append((code.co_filename, line, code.co_qualname))
    return tuple(frames)


def links(coroutine: Any) -> Iterator[tuple[Any, FrameType | None, bool]]:
    """A task's await chain, outermost first: (coroutine or generator, its frame or None, whether it
    runs now)."""
    current = coroutine
    for _ in range(_CHAIN_LIMIT):
        if current is None:
            return
        frame, running, awaited = _look_into(current)
        yield current, frame, running
        current = awaited


def _running_part(outermost: FrameType, threads: dict[int, FrameType]) -> Frames:
    for innermost in threads.values():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame is outermost:
                return of_frame(innermost, outermost)
            frame = frame.f_back
    return of_frame(outermost, outermost)


_LINKS = (
    ("cr_frame", "cr_running", "cr_await"),
    ("gi_frame", "gi_running", "gi_yieldfrom"),
    ("ag_frame", "ag_running", "ag_await"),
)


def _look_into(awaitable: Any) -> tuple[FrameType | None, bool, Any]:
    """(frame, whether it runs now, what it awaits) of one link of an await chain."""
    if type(awaitable) is CoroutineType:  # nearly always
        return awaitable.cr_frame, awaitable.cr_running, awaitable.cr_await
    if type(awaitable).__name__ == "FutureIter":  # the leaf, of asyncio's C futures
        return None, False, None
    for has_frame, is_running, awaited in _LINKS:
        frame = getattr(awaitable, has_frame, _ABSENT)
        # A proxy may answer every name, with anything.
        if frame is None or isinstance(frame, FrameType):
            running = bool(getattr(awaitable, is_running, False))
            inner = getattr(awaitable, awaited, None)
            # An async generator counts as running while it is suspended inside an asend().
            if running and inner is not None:
                running = False
            return frame, running, inner
    return None, False, _wrapped(awaitable)


_WRAPPERS = frozenset(
    {
        "async_generator_asend",
        "async_generator_athrow",
        "anext_awaitable",
        "coroutine_wrapper",
    }
)


def _wrapped(awaitable: Any) -> Any:
    """The generator behind one of the interpreter's wrappers, which have no attribute for it."""
    if type(awaitable).__name__ not in _WRAPPERS:
        return None
    import gc

    for found in gc.get_referents(awaitable):
        if isinstance(found, (AsyncGeneratorType, CoroutineType, GeneratorType)):
            return found
        if type(found).__name__ in _WRAPPERS:
            return found
    return None


def current_frames() -> dict[int, FrameType]:
    """Thread ident -> its innermost frame now."""
    return sys._current_frames()
