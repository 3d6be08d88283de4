"""Workloads that make tasks; each is called with the loop and returns what does it n times.

The depth is that of the coroutines that await each other, down to the one that makes the tasks;
the loop's own frames and the program's are on the stack besides.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Loop = asyncio.AbstractEventLoop
Work = Callable[[int], object]

BATCH = 100


async def nothing() -> None:
    pass


async def forever(future: asyncio.Future[None]) -> None:
    await future


async def deeper(left: int, body: Callable[[], Awaitable[None]]) -> None:
    if left > 1:
        await deeper(left - 1, body)
    else:
        await body()


class Others:
    """Tasks that stay alive. In the memory there are holes between them, as in a process that has
    run for a while: half as many more were made, and ended at random. Without `holes` they are
    just made."""

    def __init__(self, loop: Loop, live: int, holes: bool = True) -> None:
        self.loop = loop
        self.tasks: list[asyncio.Task[None]] = []
        self.futures: list[asyncio.Future[None]] = []
        if live:
            loop.run_until_complete(self._fill(live, live // 2 if holes else 0))

    async def _fill(self, live: int, holes: int) -> None:
        for _ in range(live + holes):
            self.add()
        await asyncio.sleep(0)
        order = list(range(len(self.tasks)))
        random.Random(1).shuffle(order)
        for index in order[live:]:
            self.futures[index].set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        kept = sorted(order[:live])
        self.tasks = [self.tasks[index] for index in kept]
        self.futures = [self.futures[index] for index in kept]

    def add(self) -> None:
        future = self.loop.create_future()
        self.futures.append(future)
        self.tasks.append(self.loop.create_task(forever(future)))


def runs(loop: Loop, depth: int, body: Callable[[int], Coroutine[Any, Any, None]]) -> Work:
    return lambda count: loop.run_until_complete(deeper(depth, lambda: body(count)))


def one_by_one(loop: Loop, depth: int, live: int) -> Work:
    others = Others(loop, live)

    async def body(count: int) -> None:
        for _ in range(count):
            await asyncio.create_task(nothing())
        assert len(others.tasks) == live

    return runs(loop, depth, body)


def in_batches(loop: Loop, depth: int, live: int) -> Work:
    """A hundred are made, then awaited; that counts as one."""
    others = Others(loop, live)

    async def body(count: int) -> None:
        for _ in range(count):
            tasks = [asyncio.create_task(nothing()) for _ in range(BATCH)]
            for task in tasks:
                await task
        assert len(others.tasks) == live

    return runs(loop, depth, body)


def turnover(loop: Loop, depth: int, live: int) -> Work:
    """The others themselves: a hundred of them, here and there, end and are replaced; that counts
    as one."""
    others = Others(loop, live)
    order = list(range(live))
    random.Random(2).shuffle(order)
    next_one = itertools.cycle(order)

    async def body(count: int) -> None:
        tasks, futures = others.tasks, others.futures
        for _ in range(count):
            chosen = list(itertools.islice(next_one, BATCH))
            for index in chosen:
                futures[index].set_result(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for index in chosen:
                futures[index] = future = loop.create_future()
                tasks[index] = asyncio.create_task(forever(future))
            await asyncio.sleep(0)

    return runs(loop, depth, body)


def taskgroup(loop: Loop, depth: int) -> Work:
    async def body(count: int) -> None:
        for _ in range(count):
            async with asyncio.TaskGroup() as group:
                for _ in range(BATCH):
                    group.create_task(nothing())

    return runs(loop, depth, body)


def gather(loop: Loop, depth: int) -> Work:
    async def body(count: int) -> None:
        for _ in range(count):
            await asyncio.gather(*[nothing() for _ in range(BATCH)])

    return runs(loop, depth, body)
