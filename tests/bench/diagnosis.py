"""What a diagnosis costs: processor seconds of a check that finds 10,000 leaks, with and without.

    python tests/bench/diagnosis.py [COUNT]

Several shapes: plain tasks that sleep, children of one gather, waiters for one lock, calls that a
busy executor has not begun, and a chain in which each awaits the next.
"""

import asyncio
import concurrent.futures
import os
import sys
import threading
import time

import leakguard
from leakguard import _describe

never = threading.Event()


async def plain(count):
    return [asyncio.create_task(asyncio.sleep(3600)) for _ in range(count)]


async def gathered(count):
    return asyncio.gather(*[asyncio.sleep(3600) for _ in range(count)])


async def take(lock):
    async with lock:
        await asyncio.sleep(3600)


async def lock_waiters(count):
    lock = asyncio.Lock()
    return [asyncio.create_task(take(lock)) for _ in range(count)]


async def executor_waiters(count):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    return pool, [asyncio.create_task(call(pool)) for _ in range(count)]


async def call(pool):
    await asyncio.get_running_loop().run_in_executor(pool, never.wait)


async def follow(task):
    await task


async def chain(count):
    task = asyncio.create_task(asyncio.sleep(3600))
    for _ in range(count - 1):
        task = asyncio.create_task(follow(task))
    return task


async def in_a_ring(box, following):
    await asyncio.sleep(0)
    await box[following]


async def ring(count):
    box = {}
    for number in range(count):
        box[number] = asyncio.create_task(in_a_ring(box, (number + 1) % count))
    return box


async def start(box, shape, count):
    box.append(await shape(count))


async def measure(shape, count):
    """(leaks, seconds of processor time with causes, and without)."""
    found = leakguard.checkpoint()
    box = []
    await asyncio.create_task(start(box, shape, count))
    for _ in range(5):
        await asyncio.sleep(0)
    seconds = []
    look_into = _describe.Context.look_into
    for function in (look_into, lambda self, resource, depth: None):
        _describe.Context.look_into = function
        begin = time.process_time()
        report = found.leaks()
        seconds.append(time.process_time() - begin)
    _describe.Context.look_into = look_into
    return len(report), *seconds


async def show(shape, count):
    leaks, slow, fast = await measure(shape, count)
    print(
        f"{shape.__name__:17} {leaks:6} leaks  {slow:.2f} s, {slow / fast:.1f} times the "
        f"{fast:.2f} s without causes",
        flush=True,
    )
    os._exit(0)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    shapes = (plain, gathered, lock_waiters, executor_waiters, chain, ring)
    wanted = os.environ.get("SHAPE")
    if wanted is None:
        for shape in shapes:
            os.environ["SHAPE"] = shape.__name__
            os.spawnv(os.P_WAIT, sys.executable, [sys.executable, *sys.argv])
        return
    for shape in shapes:
        if shape.__name__ == wanted:
            asyncio.run(show(shape, count))


main()
