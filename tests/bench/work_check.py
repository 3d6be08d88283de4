"""Workloads that check: clean blocks, and a report of many leaks."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

from work_tasks import Others, forever

Loop = asyncio.AbstractEventLoop
Work = Callable[[int], object]


def guard(loop: Loop, live: int) -> Work:
    """Blocks in which nothing is born, with older tasks alive."""
    import leakguard

    others = Others(loop, live, holes=False)

    def work(count: int) -> None:
        for _ in range(count):
            with leakguard.guard():
                pass
        assert len(others.tasks) == live

    return work


def async_guard(loop: Loop) -> Work:
    import leakguard

    async def body(count: int) -> None:
        for _ in range(count):
            async with leakguard.guard():
                pass

    return lambda count: loop.run_until_complete(body(count))


def pyleak_block(loop: Loop) -> Work:
    import pyleak  # type: ignore[import-not-found,unused-ignore]

    async def body(count: int) -> None:
        for _ in range(count):
            async with pyleak.no_task_leaks(action="raise"):
                pass

    return lambda count: loop.run_until_complete(body(count))


# Ten sites: each line is one.
MAKERS: list[Callable[[Loop, Any], asyncio.Task[None]]] = [
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
    lambda loop, coro: loop.create_task(coro),
]


async def leak(loop: Loop, count: int) -> list[asyncio.Task[None]]:
    """Tasks from ten sites; each waits for a future of its own."""
    tasks = [
        MAKERS[number % len(MAKERS)](loop, forever(loop.create_future())) for number in range(count)
    ]
    await asyncio.sleep(0)
    return tasks


def report(loop: Loop, leaks: int) -> Work:
    """The first check of the process that finds something, and its text."""
    import leakguard

    checkpoint = leakguard.checkpoint()
    tasks = loop.run_until_complete(leak(loop, leaks))

    def work(count: int) -> None:
        text = checkpoint.leaks(grace=0).text()
        assert text.startswith(f"leakguard: {leaks} leaks"), text[:200]
        assert text.count("created at") == len(MAKERS), text
        assert len(tasks) == leaks

    return work


def by_hand(loop: Loop, leaks: int) -> Work:
    """What one writes without a detector: where each task is, not where it was made."""
    tasks = loop.run_until_complete(leak(loop, leaks))

    def work(count: int) -> None:
        text = io.StringIO()
        for task in asyncio.all_tasks(loop):
            task.print_stack(file=text)
        assert text.getvalue().count("forever") >= len(tasks)

    return work
