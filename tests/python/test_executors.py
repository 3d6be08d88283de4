"""A pool's worker is charged to its executor."""

import asyncio
import concurrent.futures
import gc
import multiprocessing.pool
import threading

import pytest

import leakguard
from leakguard import LeakError


def blocked(event, begun):
    begun.set()
    event.wait()


def test_a_pool_used_in_with_is_clean():
    with leakguard.guard():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert list(pool.map(str, range(10))) == [str(number) for number in range(10)]


def test_a_pool_that_is_forgotten_is_a_leak_though_its_worker_is_idle():
    pool = None
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0.05):
            pool = concurrent.futures.ThreadPoolExecutor(1)
            pool.submit(int).result()
    (leak,) = caught.value.report
    assert (leak.kind, leak.function) == ("thread", "_worker")
    assert "never shut down" in leak.why
    assert leak.creator.kind == "executor"
    assert leak.creator.function == "ThreadPoolExecutor"
    pool.shutdown()


def test_a_pool_from_before_may_grow_inside_the_block(release):
    leakguard.install()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        begun = threading.Event()
        with leakguard.guard(grace=0.05):
            pool.submit(int).result()
            pool.submit(blocked, release, begun)
            begun.wait()
        release.set()


def test_a_pool_from_before_the_installation_may_grow_too():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with leakguard.guard(grace=0.05):
            pool.submit(int).result()


def test_a_worker_that_outlives_its_shut_down_pool_is_a_leak(release):
    leakguard.install()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    begun = threading.Event()
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0.05):
            pool.submit(blocked, release, begun)
            begun.wait()
            pool.shutdown(wait=False)
    (leak,) = caught.value.report
    assert leak.function == "blocked"
    assert leak.why == "its executor was shut down"


def test_a_worker_that_outlives_its_collected_pool_is_a_leak(release):
    begun = threading.Event()
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0.05):
            concurrent.futures.ThreadPoolExecutor(1).submit(blocked, release, begun)
            begun.wait()
            gc.collect()
    (leak,) = caught.value.report
    assert leak.why == "its executor was collected"
    assert leak.creator.kind == "executor"


def test_the_idle_default_executor_of_a_running_loop_is_clean():
    async def main():
        async with leakguard.guard(grace=0.05):
            assert await asyncio.to_thread(str, 5) == "5"
        async with leakguard.guard(grace=0.05):
            await asyncio.get_running_loop().run_in_executor(None, int)

    asyncio.run(main())


def test_a_default_executors_worker_that_is_stuck_in_its_call_is_a_leak(release):
    async def main():
        begun = threading.Event()
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(grace=0.05, kinds="thread"):
                future = asyncio.get_running_loop().run_in_executor(None, blocked, release, begun)
                while not begun.is_set():
                    await asyncio.sleep(0)
        release.set()
        await future
        return caught.value.report

    (leak,) = asyncio.run(main())
    assert leak.function == "blocked"


def test_to_thread_shows_the_function_of_the_user(release):
    async def main():
        begun = threading.Event()
        point = leakguard.checkpoint()
        task = asyncio.create_task(asyncio.to_thread(blocked, release, begun))
        while not begun.is_set():
            await asyncio.sleep(0)
        (leak,) = point.leaks(kinds="thread")
        release.set()
        await task
        return leak

    assert asyncio.run(main()).function == "blocked"


def test_a_pool_set_as_default_executor_belongs_to_its_loop():
    async def main():
        async with leakguard.guard(grace=0.05):
            pool = concurrent.futures.ThreadPoolExecutor(1)
            asyncio.get_running_loop().set_default_executor(pool)
            await asyncio.to_thread(int)

    asyncio.run(main())


def test_uvloops_default_executor_belongs_to_its_loop():
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no wheel for this version yet")

    async def main():
        async with leakguard.guard(grace=0.05):
            await asyncio.to_thread(int)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_multiprocessing_thread_pools_threads_are_charged_to_it():
    with leakguard.guard():
        with multiprocessing.pool.ThreadPool(2) as pool:
            assert pool.map(str, range(4)) == ["0", "1", "2", "3"]
        pool.join()
    leakguard.install()
    with multiprocessing.pool.ThreadPool(1) as old:
        with leakguard.guard(grace=0.05):
            old.map(str, range(4))
    pool = None
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0.05):
            pool = multiprocessing.pool.ThreadPool(1)
            pool.map(str, range(4))
    report = caught.value.report
    pool.terminate()
    pool.join()
    assert len(report) == 4
    assert {leak.why for leak in report} == {"its executor was never shut down"}


def test_a_process_pool_is_clean_in_with_and_a_leak_when_forgotten(program):
    result = program(
        "import concurrent.futures, leakguard, multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with leakguard.guard(grace=5):\n"
        "        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:\n"
        "            print(pool.submit(abs, -1).result())\n"
        "    try:\n"
        "        with leakguard.guard(grace=0.1):\n"
        "            pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)\n"
        "            pool.submit(abs, -2).result()\n"
        "    except leakguard.LeakError as error:\n"
        "        print({leak.why for leak in error.report})\n"
        "    pool.shutdown()\n"
    )
    assert result.stdout.splitlines() == ["1", "{'its executor was never shut down'}"], (
        result.stderr
    )
