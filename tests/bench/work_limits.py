"""Workloads of what is watched or looked into beyond births and deaths: iterations of a loop, the
diagnosis of many leaks, the proof that tasks wait for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Loop = asyncio.AbstractEventLoop
Work = Callable[[int], object]

never = threading.Event()


def sleeps(loop: Loop, uvloop: bool) -> Work:
    """Iterations that do nothing but wake a task: the dearest case."""

    async def body(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return run_in(loop, uvloop, body)


def calls(loop: Loop, uvloop: bool) -> Work:
    """Iterations in which a callback asks for the next."""

    async def body(count: int) -> None:
        running = asyncio.get_running_loop()
        done = running.create_future()

        def again(left: int) -> None:
            if left:
                running.call_soon(again, left - 1)
            else:
                done.set_result(None)

        again(count)
        await done

    return run_in(loop, uvloop, body)


def run_in(loop: Loop, uvloop: bool, body: Callable[[int], Any]) -> Work:
    if uvloop:
        import uvloop as module  # type: ignore[import-not-found,unused-ignore]

        loop = module.new_event_loop()
    return lambda count: loop.run_until_complete(body(count))


async def plain(count: int) -> object:
    return [asyncio.create_task(asyncio.sleep(3600)) for _ in range(count)]


async def gathered(count: int) -> object:
    return asyncio.gather(*[asyncio.sleep(3600) for _ in range(count)])


async def lock_waiters(count: int) -> object:
    lock = asyncio.Lock()

    async def take() -> None:
        async with lock:
            await asyncio.sleep(3600)

    return [asyncio.create_task(take()) for _ in range(count)]


async def executor_waiters(count: int) -> object:
    pool = concurrent.futures.ThreadPoolExecutor(1)

    async def call() -> None:
        await asyncio.get_running_loop().run_in_executor(pool, never.wait)

    return pool, [asyncio.create_task(call()) for _ in range(count)]


async def follow(task: Awaitable[None]) -> None:
    await task


async def chain(count: int) -> object:
    task = asyncio.create_task(asyncio.sleep(3600))
    for _ in range(count - 1):
        task = asyncio.create_task(follow(task))
    return task


async def ring(count: int) -> object:
    box: dict[int, asyncio.Task[None]] = {}

    async def one(following: int) -> None:
        await asyncio.sleep(0)
        await box[following]

    for number in range(count):
        box[number] = asyncio.create_task(one((number + 1) % count))
    return box


SHAPES = {it.__name__: it for it in (plain, gathered, lock_waiters, executor_waiters, chain, ring)}


def diagnosis(loop: Loop, shape: str, leaks: int, causes: bool) -> Work:
    """A check that finds so many leaks, with their causes looked into or not."""
    import leakguard
    from leakguard import _describe

    if not causes:
        _describe.Context.look_into = lambda self, resource, depth: None  # type: ignore[assignment,method-assign,return-value,unused-ignore]
    held: list[object] = []

    async def start() -> None:
        held.append(await SHAPES[shape](leaks))

    async def body() -> None:
        checkpoint = leakguard.checkpoint()
        await asyncio.create_task(start())
        for _ in range(5):
            await asyncio.sleep(0)
        checkpoints.append(checkpoint)

    async def look() -> None:
        found = len(checkpoints[0].leaks())
        assert found >= leaks, found

    checkpoints: list[leakguard.Checkpoint] = []
    loop.run_until_complete(body())
    return lambda count: loop.run_until_complete(look())


class Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.around: dict[str, object] = {"number": [number], "text": str(number)}


def heap(loop: Loop, objects: int, tasks: int) -> list[object]:
    """So many objects, and tasks that nothing can wake."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def fill() -> None:
        held.extend(asyncio.create_task(forever()) for _ in range(tasks))
        await asyncio.sleep(0)

    held: list[object] = []
    while len(held) * 3 < objects:  # a node, its dict, its list
        held.append(Node(len(held)))
    loop.run_until_complete(fill())
    return held


def collection(loop: Loop, objects: int, tasks: int) -> Work:
    """The garbage collector's own walk over the same heap, as a measure of the machine."""
    held = heap(loop, objects, tasks)

    def work(count: int) -> None:
        gc.collect()
        assert len(held) > tasks

    return work


def waiting_forever(loop: Loop, objects: int, tasks: int) -> Work:
    from leakguard import _core

    held = heap(loop, objects, tasks)

    async def mark() -> None:
        found = _core.waiting_forever((), (), 60.0)
        assert len(found[0]) == tasks, (found, len(held))

    return lambda count: loop.run_until_complete(mark())
