"""scope="descendants": only what the block's own code created, directly or not."""

import asyncio
import concurrent.futures
import threading

import pytest

import leakguard
from leakguard import LeakError


async def sleeper():
    await asyncio.sleep(3600)


def test_of_two_concurrent_guards_only_the_leaking_one_raises():
    left = []

    async def leaking():
        async with leakguard.guard(scope="descendants", grace=0.05):
            left.append(asyncio.create_task(sleeper(), name="leaked"))
            await asyncio.sleep(0.02)

    async def clean():
        async with leakguard.guard(scope="descendants", grace=0.05):
            await asyncio.sleep(0.03)

    async def main():
        results = await asyncio.gather(leaking(), clean(), return_exceptions=True)
        for task in left:
            task.cancel()
        return results

    first, second = asyncio.run(main())
    assert [leak.name for leak in first.report] == ["leaked"]
    assert second is None


async def by_grandchild():
    async def child():
        by_grandchild.task = asyncio.create_task(sleeper(), name="leaked")

    await asyncio.create_task(child())
    return by_grandchild.task


async def by_callback():
    done = asyncio.Event()

    def callback():
        by_callback.task = asyncio.create_task(sleeper(), name="leaked")
        done.set()

    asyncio.get_running_loop().call_soon(callback)
    await done.wait()
    return by_callback.task


async def by_group():
    async with asyncio.TaskGroup() as group:
        by_group.inner = group.create_task(by_grandchild())
    return by_group.inner.result()


@pytest.mark.parametrize("way", [by_grandchild, by_callback, by_group])
def test_what_descends_from_the_block_belongs_to_it(way):
    async def main():
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(scope="descendants", grace=0):
                task = await way()
        task.cancel()
        return caught.value.report

    assert [leak.name for leak in asyncio.run(main())] == ["leaked"]


def test_what_a_thread_of_the_block_creates_belongs_to_it(release):
    ready = threading.Event()

    def parent():
        threading.Thread(target=release.wait, name="grandchild").start()
        ready.set()

    with pytest.raises(LeakError) as caught:
        with leakguard.guard(scope="descendants", grace=0.05):
            thread = threading.Thread(target=parent)
            thread.start()
            thread.join()
            ready.wait()
    assert [leak.name for leak in caught.value.report] == ["grandchild"]


def test_what_another_thread_creates_does_not(release):
    go, ready = threading.Event(), threading.Event()

    def other():
        go.wait()
        threading.Thread(target=release.wait).start()
        ready.set()

    leakguard.install()
    threading.Thread(target=other).start()
    with leakguard.guard(scope="descendants", grace=0.05):
        go.set()
        ready.wait()


def test_a_pools_worker_belongs_to_its_pool_not_to_who_submits(release):
    leakguard.install()
    ready = threading.Event()

    def job():
        threading.Thread(target=release.wait, name="of the pool").start()
        ready.set()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with leakguard.guard(scope="descendants", grace=0.05):
            pool.submit(job).result()
            ready.wait()


def test_the_scope_of_an_inner_block_is_inside_the_outer():
    async def main():
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(scope="descendants", grace=0):
                async with leakguard.guard(scope="descendants", grace=0, kinds="thread"):
                    main.task = asyncio.create_task(sleeper(), name="inner")
        main.task.cancel()
        return caught.value.report

    assert [leak.name for leak in asyncio.run(main())] == ["inner"]


def test_a_task_with_an_empty_context_still_has_its_creator():
    import contextvars

    async def main():
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(scope="descendants", grace=0):

                async def child():
                    main.task = asyncio.create_task(sleeper(), name="leaked")

                await asyncio.create_task(child(), context=contextvars.Context())
        main.task.cancel()
        return caught.value.report

    assert [leak.name for leak in asyncio.run(main())] == ["leaked"]
