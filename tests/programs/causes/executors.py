"""Tasks and threads that have to do with executors, and threads that have not."""

import asyncio
import concurrent.futures
import gc
import multiprocessing
import threading
import time

never = threading.Event()
begun = threading.Event()


def block():
    begun.set()
    never.wait()  # blocks


async def call():
    await asyncio.to_thread(block)


async def in_to_thread():
    task = asyncio.create_task(call())  # calls
    while not begun.is_set():
        await asyncio.sleep(0.001)
    return task


async def call_in(pool):
    await asyncio.get_running_loop().run_in_executor(pool, block)


async def call_in_with_timeout(pool):
    await asyncio.wait_for(call_in(pool), 60)


async def queued():
    """The pool's one worker is busy: the second call has not begun."""
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="pool")
    tasks = [
        asyncio.create_task(call_in(pool)),  # has begun
        asyncio.create_task(call_in(pool)),  # is queued
    ]
    while not begun.is_set():
        await asyncio.sleep(0.001)
    return tasks, pool


async def wait_for_a_future(future):
    await asyncio.wrap_future(future)


async def no_executor():
    """A concurrent.futures.Future that no executor has."""
    future = concurrent.futures.Future()
    return asyncio.create_task(wait_for_a_future(future)), future  # of no executor


async def process_pool():
    fork = multiprocessing.get_context("fork")  # other ways leave a helper with our pipe behind
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=fork)
    task = asyncio.create_task(sleep_in(pool))  # in a process
    while not pool._processes or not task._fut_waiter:
        await asyncio.sleep(0.001)
    return task, pool


async def sleep_in(pool):
    await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 1)


def never_shut_down():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(int).result()  # never shut down
    return pool


def collected():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(begun.set).result()
    pool.submit(block)  # collected
    del pool
    gc.collect()


def shut_down_while_busy():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(block)  # shut down
    pool.shutdown(wait=False)
    begun.wait()
    return pool


def not_a_daemon():
    threading.Thread(target=block).start()  # holds the exit


def daemon():
    threading.Thread(target=block, daemon=True).start()  # does not
