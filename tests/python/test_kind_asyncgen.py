"""Async generators that were begun and left at a yield."""

import asyncio
import contextlib
import ctypes
import gc
import sys
import types

import pytest

import leakguard
from leakguard import LeakError


def here():
    return sys._getframe(1).f_lineno


async def numbers():
    yield 1
    yield 2


FIRST_YIELD = numbers.__code__.co_firstlineno + 1


async def by_anext(generator):
    await anext(generator)
    return here() - 1


async def by_dunder(generator):
    await generator.__anext__()
    return here() - 1


async def by_asend(generator):
    await generator.asend(None)
    return here() - 1


async def by_loop(generator):
    async for _ in generator:
        break
    return here() - 2


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    if request.param == "asyncio":
        return asyncio.run
    return pytest.importorskip("uvloop").run


@pytest.mark.parametrize("begin", [by_anext, by_dunder, by_asend, by_loop])
def test_a_generator_that_is_left_at_a_yield_is_a_leak(begin, run):
    async def main():
        async with leakguard.guard(kinds="asyncgen", grace=0.01):
            generator = numbers()
            lines.append(await begin(generator))
            kept.append(generator)

    kept, lines = [], []
    with pytest.raises(LeakError) as caught:
        run(main())
    (leak,) = caught.value.report
    assert (leak.kind, leak.name, leak.function) == ("asyncgen", "numbers", "numbers")
    assert (leak.state, leak.site.lineno) == ("suspended", lines[0])
    assert [frame.lineno for frame in leak.current_stack] == [FIRST_YIELD]
    assert (
        leak.why == "it was left at a yield, and nobody closed it: aclose() runs its finally blocks"
    )
    assert "(1 asyncgen;" in str(caught.value)


def test_near_misses_are_none(run):
    async def main():
        async with leakguard.guard(kinds="asyncgen", grace=0.05):
            kept.append(numbers())  # never begun
            async for _ in numbers():  # exhausted
                pass
            async for _ in numbers():  # dropped: the loop closes it
                break
            closed = numbers()
            await anext(closed)
            await closed.aclose()
            kept.append(closed)
            async with contextlib.aclosing(numbers()) as another:
                await anext(another)
            kept.append(another)

    kept = []
    run(main())


def test_one_that_a_live_task_iterates_over_is_none(run):
    async def consume(begun):
        async for _ in numbers():
            begun.set()
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def resource():
        yield

    async def hold(begun):
        async with resource():
            begun.set()
            await asyncio.Event().wait()

    async def local(begun, generator):
        begun.set()
        await asyncio.Event().wait()
        del generator

    async def main():
        generator = numbers()
        for function, args in ((consume, ()), (hold, ()), (local, (generator,))):
            begun = asyncio.Event()
            async with leakguard.guard(kinds="asyncgen", grace=0.01):
                if args:
                    await anext(generator)
                task = asyncio.create_task(function(begun, *args))
                await begun.wait()
            task.cancel()
        del generator, args

    run(main())


def test_inside_an_async_for_the_check_lets_it_be():
    async def main():
        point = leakguard.checkpoint()
        async for _ in numbers():
            assert len(point.leaks(kinds="asyncgen")) == 0
        async for _ in numbers():
            if len(point.leaks(kinds="asyncgen")) == 0:
                break
        else:
            raise AssertionError

    leakguard.install(kinds="asyncgen")
    asyncio.run(main())


def test_an_inner_generator_belongs_to_the_outer():
    async def outer():
        async for number in numbers():
            yield number

    async def main():
        async with leakguard.guard(kinds="asyncgen", grace=0.01):
            kept.append(outer())
            await anext(kept[0])

    kept = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    assert [leak.function.rpartition(".")[2] for leak in caught.value.report] == ["outer"]


def test_one_whose_task_ended_and_left_it_is_a_leak():
    async def begin():
        kept.append(numbers())
        await anext(kept[0])

    async def main():
        async with leakguard.guard(kinds="asyncgen", grace=0.01):
            await asyncio.create_task(begin())

    kept = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    assert leak.creator.ended == "returned"


def test_one_that_only_its_runner_closes_is_a_leak(run):
    async def main():
        kept.append(numbers())
        await anext(kept[0])
        lines.append(here() - 1)

    kept, lines = [], []
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds=("task", "asyncgen"), grace=0.01):
            run(main())
    (leak,) = caught.value.report
    assert (leak.kind, leak.site.lineno) == ("asyncgen", lines[0])
    assert leak.why == "nobody closed it before its runner did"


def test_without_a_loop():
    def drive(awaitable):
        with contextlib.suppress(StopIteration):
            awaitable.send(None)

    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds="asyncgen", grace=0.01):
            generator = numbers()
            drive(generator.__anext__())
            line = here() - 1
    (leak,) = caught.value.report
    assert leak.site.lineno == line
    drive(generator.aclose())
    assert generator.ag_frame is None


def test_trio():
    trio = pytest.importorskip("trio")

    async def consume(task_status):
        async for _ in numbers():
            task_status.started()
            await trio.sleep_forever()

    async def main():
        async with trio.open_nursery() as nursery:
            try:
                async with leakguard.guard(kinds="asyncgen", grace=0.01):
                    await nursery.start(consume)
                async with leakguard.guard(kinds="asyncgen", grace=0.01):
                    kept.append(numbers())
                    await anext(kept[0])
                    lines.append(here() - 1)
            finally:
                nursery.cancel_scope.cancel()
                await kept[0].aclose()

    kept, lines = [], []
    with pytest.raises((LeakError, BaseExceptionGroup)) as caught:
        trio.run(main)
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    (leak,) = error.report
    assert leak.site.lineno == lines[0]


def test_one_from_before_is_found_and_is_no_leak():
    async def main():
        begun, fresh = numbers(), numbers()
        await anext(begun)
        before = leakguard.stats()["asyncgen"]["live"]
        async with leakguard.guard(kinds="asyncgen", grace=0.01):
            assert leakguard.stats()["asyncgen"]["live"] >= before + 1
            await anext(begun)
        with pytest.raises(LeakError):
            async with leakguard.guard(kinds="asyncgen", grace=0.01):
                await anext(fresh)

    gc.collect()
    asyncio.run(main())


def test_the_counters_balance():
    async def main():
        before = leakguard.stats()["asyncgen"]
        for _ in range(50):
            async for _ in numbers():
                pass
        after = leakguard.stats()["asyncgen"]
        assert after["created"] - before["created"] == 50
        assert after["live"] == before["live"]
        assert after["created"] == after["ended"] + after["live"]

    leakguard.install(kinds="asyncgen")
    gc.collect()
    asyncio.run(main())


def entries():
    """The slot, what `__anext__` calls, and the entry of asend, as CPython lays these out."""

    def word(address):
        return ctypes.c_size_t.from_address(address).value

    cls = types.AsyncGeneratorType
    as_async = word(id(cls) + 80)
    wrapper, method = id(cls.__dict__["__anext__"]), id(cls.__dict__["asend"])
    return word(as_async + 16), word(wrapper + 48), word(word(method + 40) + 8)


def test_nothing_of_it_stays_after_uninstall():
    before = entries()
    leakguard.install(kinds="asyncgen")
    assert all(now != then for now, then in zip(entries(), before, strict=True))
    leakguard.uninstall()
    assert entries() == before
    leakguard.install(kinds="asyncgen")
    leakguard.uninstall()
    assert entries() == before
