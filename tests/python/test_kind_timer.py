"""Armed timers: call_later and call_at handles that nobody cancelled."""

import asyncio
import functools
import inspect
import sys

import pytest

import leakguard
from leakguard import LeakError


def here():
    return sys._getframe(1).f_lineno


def fire(*args):
    pass


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """asyncio.run, and uvloop's."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")
    return uvloop.run


def test_an_armed_timer_is_a_leak(run):
    async def main():
        async with leakguard.guard(kinds="timer", grace=0.01):
            loop = asyncio.get_running_loop()
            handles.append((loop.call_later(60, fire), here()))
            handles.append((loop.call_at(loop.time() + 60, functools.partial(fire, 1)), here()))

    handles = []
    with pytest.raises(LeakError) as caught:
        run(main())
    report = caught.value.report
    assert [leak.site.lineno for leak in report] == [line for _, line in handles]
    for leak in report:
        assert (leak.kind, leak.function, leak.state) == ("timer", "fire", "armed")
        assert 50 < leak.facts["seconds_left"] <= 60
        assert leak.why.startswith("nobody cancelled it: it fires in ")
    assert "(2 timers;" in str(caught.value)


def test_timers_that_fired_or_were_cancelled_are_none(run):
    async def main():
        async with leakguard.guard(kinds="timer", grace=0.5):
            loop = asyncio.get_running_loop()
            kept.append(loop.call_later(0, fire))
            kept.append(loop.call_later(0.01, fire))
            kept.append(loop.call_later(60, fire))
            kept[-1].cancel()
            del loop

    kept = []
    run(main())


def test_a_timer_that_fires_within_the_grace_is_none(run):
    async def main():
        async with leakguard.guard(kinds="timer", grace=5):
            asyncio.get_running_loop().call_later(0.02, fire)

    run(main())


def test_timers_of_asyncio_belong_to_the_tasks_that_wait(run):
    async def limited():
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    async def main():
        waits = [
            asyncio.sleep(60),
            limited(),
            asyncio.wait_for(asyncio.Event().wait(), 60),
            asyncio.wait([asyncio.create_task(asyncio.sleep(60))], timeout=60),
        ]
        async with leakguard.guard(kinds="timer", grace=0.01):
            tasks = [asyncio.create_task(wait) for wait in waits]
            await asyncio.sleep(0.01)
            assert leakguard.stats()["timer"]["live"] >= 4
        for task in tasks:
            task.cancel()

    run(main())


def test_what_asyncio_offers_as_a_callback_is_no_timer_of_asyncio(run):
    async def main():
        loop = asyncio.get_running_loop()
        async with leakguard.guard(kinds="timer", grace=0.01):
            loop.call_later(60, asyncio.Event().set)

    with pytest.raises(LeakError) as caught:
        run(main())
    assert [leak.function for leak in caught.value.report] == ["Event.set"]


def test_a_timer_that_is_lost_with_its_loop_is_a_leak(run):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(60, fire)
        lines.append(here() - 1)
        loop.call_later(60, fire).cancel()
        loop.call_later(0, fire)
        await asyncio.sleep(0.01)

    lines = []
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds=("task", "thread", "timer"), grace=0.01):
            run(main())
    (leak,) = caught.value.report
    assert (leak.kind, leak.site.lineno) == ("timer", lines[0])
    assert leak.why == "nobody cancelled it before its loop was closed"


def test_a_periodic_timer_has_its_own_line():
    async def main():
        async with leakguard.guard(kinds="timer", grace=0.05):
            tick()
            await asyncio.sleep(0.02)

    def tick():
        asyncio.get_running_loop().call_later(0.001, tick)
        lines.append(here() - 1)

    lines = []
    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    (leak,) = caught.value.report
    assert leak.site.lineno == lines[0]
    assert leak.function.endswith("tick")


def test_the_counters_balance_and_records_end_with_their_handles():
    async def main():
        leakguard.install(kinds="timer")
        before = leakguard.stats()["timer"]
        for _ in range(100):
            await asyncio.sleep(0.0001)
        after = leakguard.stats()["timer"]
        assert after["created"] - before["created"] == 100
        assert after["created"] == after["ended"] + after["live"]
        assert after["live"] - before["live"] <= 1

    asyncio.run(main())


def test_nothing_is_replaced_after_uninstall():
    handle = asyncio.TimerHandle
    before, signature = handle.__init__, inspect.signature(handle)
    leakguard.install(kinds="timer")
    assert handle.__init__ is not before
    assert inspect.signature(handle) == signature
    leakguard.uninstall()
    assert handle.__init__ is before


def test_uvloop_is_as_it_was_after_uninstall():
    uvloop = pytest.importorskip("uvloop")
    before = dict(uvloop.Loop.__dict__)
    leakguard.install(kinds="timer")
    assert "call_later" in uvloop.Loop.__dict__
    leakguard.uninstall()
    assert dict(uvloop.Loop.__dict__) == before
