"""Executors and pools that are never shut down, as a kind of their own."""

import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.pool
import sys

import pytest

import leakguard
from leakguard import LeakError


def here():
    return sys._getframe(1).f_lineno


MAKERS = {
    "ThreadPoolExecutor": lambda: concurrent.futures.ThreadPoolExecutor(2),
    "ProcessPoolExecutor": lambda: concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ),
    "ThreadPool": lambda: multiprocessing.pool.ThreadPool(2),
}


def end(pool):
    if hasattr(pool, "shutdown"):
        pool.shutdown()
    else:
        pool.close()
        pool.join()


@pytest.mark.parametrize("name", MAKERS)
def test_a_pool_that_is_never_shut_down_is_a_leak(name):
    make = MAKERS[name]
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds="executor", grace=0.01):
            pool = make()
    (leak,) = caught.value.report
    assert (leak.kind, leak.function, leak.state) == ("executor", name, "open")
    assert leak.site.lineno == make.__code__.co_firstlineno
    assert leak.cause == "executor-not-shut-down"
    assert leak.why.startswith("it was never shut down")
    end(pool)


@pytest.mark.parametrize("name", MAKERS)
def test_a_pool_that_is_shut_down_is_none(name):
    with leakguard.guard(kinds="executor"):
        end(MAKERS[name]())


def test_the_worker_and_its_executor_are_told_together():
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds=("thread", "executor"), grace=0.01):
            pool = concurrent.futures.ThreadPoolExecutor(1)
            line = here() - 1
            pool.submit(int).result()
    executor, worker = caught.value.report
    assert (executor.kind, worker.kind) == ("executor", "thread")
    assert executor.site.lineno == line
    assert executor.why == "it was never shut down, and its worker waits for it"
    assert executor.facts == {"workers": 1}
    assert worker.creator.serial == executor.serial
    pool.shutdown()


def test_a_default_executor_belongs_to_its_loop():
    async def main():
        async with leakguard.guard(kinds="executor", grace=0.01):
            await asyncio.to_thread(int)

    asyncio.run(main())


def test_an_executor_from_before_is_found_and_its_workers_are_no_leaks():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with leakguard.guard(grace=0.01):
        with leakguard.guard(kinds=("thread", "executor"), grace=0.01):
            pool.submit(int).result()
            assert "ThreadPoolExecutor" in {
                it.function for it in leakguard.snapshot(kinds="executor")
            }
    pool.shutdown()
