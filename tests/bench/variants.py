"""What can be switched on in a process: nothing, leakguard, and what a user would take instead.

Each is a function that gets the loop, before the workload makes its first task.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import traceback
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

Loop = asyncio.AbstractEventLoop


class UnavailableError(Exception):
    """The text says why."""


# What must stay referenced to stay switched on.
held: list[object] = []


def off(loop: Loop) -> None:
    pass


def leakguard(loop: Loop) -> None:
    import leakguard

    leakguard.install()


def leakguard_native(loop: Loop) -> None:
    import leakguard

    try:
        leakguard.install(kinds=("task", "thread", "native_thread"))
    except ValueError as error:
        raise UnavailableError(str(error)) from None


def leakguard_guard(loop: Loop, **options: Any) -> None:
    """With a guard that stays open."""
    import leakguard

    try:
        # The checks themselves are not what is measured: it is never left.
        guard = leakguard.guard(grace=0, **options)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UnavailableError(str(error)) from None
    guard.__enter__()
    held.append(guard)


def leakguard_max_live(loop: Loop) -> None:
    leakguard_guard(loop, max_live={"task": 10_000_000, "thread": 10_000_000})


def leakguard_blocking(loop: Loop) -> None:
    leakguard_guard(loop, blocking=60.0)


def asyncio_debug(loop: Loop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 3600  # one that is slow would be logged


def pyleak(loop: Loop) -> None:
    no_task_leaks = need("pyleak").no_task_leaks
    watching = no_task_leaks(action="log", enable_creation_tracking=True)
    loop.run_until_complete(watching.__aenter__())
    held.append(watching)


def aiomonitor(loop: Loop) -> None:
    """Its user interface listens on free ports of the loopback."""
    monitor = need("aiomonitor").Monitor(
        loop, host="127.0.0.1", termui_port=0, webui_port=0,
        console_enabled=False, hook_task_factory=True,
    )  # fmt: skip
    with contextlib.redirect_stdout(None):
        monitor.start()
    held.append(monitor)


def tracemalloc(loop: Loop, frames: int) -> None:
    import tracemalloc

    tracemalloc.start(frames)


def task_factory(loop: Loop) -> None:
    """What a user writes in ten lines: a stack for each task, as long as it lives."""
    stacks: weakref.WeakKeyDictionary[object, object] = weakref.WeakKeyDictionary()

    def factory(loop: Loop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        stacks[task] = traceback.extract_stack()
        return task

    loop.set_task_factory(factory)
    held.append(stacks)


VARIANTS: dict[str, Callable[[Loop], None]] = {
    "off": off,
    "leakguard": leakguard,
    "leakguard, native stacks": leakguard_native,
    "leakguard, max_live": leakguard_max_live,
    "leakguard, blocking": leakguard_blocking,
    "asyncio debug mode": asyncio_debug,
    "pyleak": lambda loop: held.append(need("pyleak")),
    "pyleak, creation tracking": pyleak,
    "aiomonitor, task factory": aiomonitor,
    "tracemalloc, 1 frame": lambda loop: tracemalloc(loop, 1),
    "tracemalloc, 25 frames": lambda loop: tracemalloc(loop, 25),
    "task factory, extract_stack": task_factory,
}

PEERS = (
    "asyncio debug mode",
    "pyleak, creation tracking",
    "aiomonitor, task factory",
    "tracemalloc, 1 frame",
    "tracemalloc, 25 frames",
    "task factory, extract_stack",
)


def switch_on(name: str, loop: Loop) -> None:
    """Raises UnavailableError where it cannot be had here."""
    VARIANTS[name](loop)


def need(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{name} is not installed ({error})") from None
    except Exception as error:
        raise UnavailableError(
            f"{name} does not run on this Python: {type(error).__name__}: {error}"
        ) from None
