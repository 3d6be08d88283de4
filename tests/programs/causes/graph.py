"""Tasks that wait for others by each of asyncio's means."""

import asyncio
import concurrent.futures
import threading


async def leaf():
    await asyncio.sleep(60)  # leaf


async def by_await(task):
    await task


async def by_gather(*tasks):
    await asyncio.gather(*tasks)


async def by_nested_gather(one, other):
    await asyncio.gather(asyncio.gather(one), other)


async def by_shield(task):
    await asyncio.shield(task)


async def by_wait(*tasks):
    await asyncio.wait(tasks)


async def by_wait_for(task):
    await asyncio.wait_for(task, 60)


async def by_as_completed(*tasks):
    for following in asyncio.as_completed(tasks):
        await following


async def by_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="leaf")


async def by_timeout(task):
    async with asyncio.timeout(60):
        await task


async def in_generators(task):
    async for _ in numbers(task):
        pass


async def numbers(task):
    await awaitable(task)  # deep
    yield 1


class Awaitable:
    def __init__(self, task):
        self.task = task

    def __await__(self):
        yield from self.task.__await__()  # deeper


def awaitable(task):
    return Awaitable(task)


async def one(waiting):
    """One task that waits for one leaf."""
    task = asyncio.create_task(leaf(), name="leaf")
    waiter = asyncio.create_task(waiting(task), name="waiter")
    for _ in range(3):
        await asyncio.sleep(0)
    return waiter, task


async def two(waiting):
    tasks = [asyncio.create_task(leaf(), name=f"leaf {number}") for number in range(2)]
    waiter = asyncio.create_task(waiting(*tasks), name="waiter")
    for _ in range(3):
        await asyncio.sleep(0)
    return waiter, tasks


async def awaits():
    return await one(by_await)


async def gathers():
    return await two(by_gather)


async def gathers_nested():
    return await two(by_nested_gather)


async def shields():
    return await one(by_shield)


async def waits():
    return await two(by_wait)


async def waits_for():
    return await one(by_wait_for)


async def completes():
    return await two(by_as_completed)


async def groups():
    waiter = asyncio.create_task(by_group(), name="waiter")
    for _ in range(3):
        await asyncio.sleep(0)
    return waiter


async def times_out():
    return await one(by_timeout)


async def generates():
    return await one(in_generators)


async def other_loop():
    """A task of this loop waits for one in another thread's."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(leaf(), loop)

    async def wait():
        await asyncio.wrap_future(future)

    waiter = asyncio.create_task(wait(), name="waiter")
    while not future._done_callbacks or waiter._fut_waiter is None:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    return waiter


async def plain_future():
    future = concurrent.futures.Future()

    async def wait():
        await asyncio.wrap_future(future)

    waiter = asyncio.create_task(wait(), name="waiter")
    await asyncio.sleep(0)
    return waiter, future
