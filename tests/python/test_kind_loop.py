"""Event loops that are never closed."""

import asyncio
import gc
import inspect
import pickle
import threading

import pytest

import leakguard
from leakguard import LeakError


def test_a_loop_that_is_never_closed_is_a_leak():
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds="loop", grace=0.01):
            loop = asyncio.new_event_loop()
            line = inspect.currentframe().f_lineno - 1
    (leak,) = caught.value.report
    assert (leak.kind, leak.state, leak.site.lineno) == ("loop", "stopped", line)
    assert leak.function == leak.name == type(loop).__name__
    assert "never closed" in leak.why
    assert "1 leak since the block began (1 loop;" in str(caught.value)
    loop.close()


def test_a_closed_loop_is_none():
    with leakguard.guard(kinds="loop"):
        asyncio.new_event_loop().close()
        asyncio.run(asyncio.sleep(0))


def test_a_loop_from_before_is_none_and_is_found():
    loop = asyncio.new_event_loop()
    with leakguard.guard(kinds="loop"):
        found = leakguard.snapshot(kinds="loop")
        assert [list(leak.creation_stack) for leak in found] == [[]] * len(found)
    loop.close()
    assert len(leakguard.snapshot(kinds="loop")) == len(found) - 1


def test_the_loop_that_runs_the_check_is_none():
    async def main(point):
        return point.leaks(kinds="loop")

    leakguard.install(kinds="loop")
    point = leakguard.checkpoint()
    assert len(asyncio.run(main(point))) == 0


def test_a_loop_that_another_thread_runs_is_one_until_it_is_closed():
    def run():
        with asyncio.Runner() as runner:
            started.append(runner.get_loop())
            runner.run(main())

    async def main():
        stop.append(asyncio.Event())
        begun.set()
        await stop[0].wait()

    started, stop, begun = [], [], threading.Event()
    leakguard.install(kinds="loop")
    point = leakguard.checkpoint()
    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    (leak,) = point.leaks(kinds="loop")
    assert leak.state == "running"
    started[0].call_soon_threadsafe(stop[0].set)
    thread.join()
    assert len(point.leaks(kinds="loop")) == 0


class Custom(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        self.own = True


def test_a_subclass_with_its_own_init_is_seen_once():
    leakguard.install(kinds="loop")
    before = leakguard.stats()["loop"]["created"]
    loop = Custom()
    assert leakguard.stats()["loop"]["created"] == before + 1
    loop.close()


def test_the_counters_balance_and_follow_the_objects():
    gc.collect()
    leakguard.install(kinds="loop")
    before = leakguard.stats()["loop"]
    loop = asyncio.new_event_loop()
    after = leakguard.stats()["loop"]
    assert after["created"] - before["created"] == after["live"] - before["live"] == 1
    loop.close()
    del loop
    gc.collect()
    assert leakguard.stats()["loop"]["live"] == before["live"]


def test_nothing_is_replaced_after_uninstall():
    cls = asyncio.BaseEventLoop
    before, signature = cls.__init__, inspect.signature(cls.__init__)
    leakguard.install(kinds="loop")
    assert cls.__init__ is not before
    assert inspect.signature(cls.__init__) == signature
    assert repr(cls.__init__) == repr(before)
    assert pickle.loads(pickle.dumps(cls)) is cls
    leakguard.uninstall()
    assert cls.__init__ is before


def test_uvloop():
    uvloop = pytest.importorskip("uvloop")
    own = dict(uvloop.Loop.__dict__)
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds="loop", grace=0.01):
            loop = uvloop.Loop()
            line = inspect.currentframe().f_lineno - 1
            uvloop.new_event_loop().close()
    (leak,) = caught.value.report
    assert (leak.kind, leak.function, leak.site.lineno) == ("loop", "Loop", line)
    loop.close()
    leakguard.uninstall()
    assert dict(uvloop.Loop.__dict__) == own


def collect():
    gc.collect()


@pytest.mark.parametrize("end", [collect, int], ids=["collector", "last reference"])
def test_a_loop_that_was_freed_before_it_was_closed_is_a_leak(end):
    # Its self-pipe's reader, a bound method, makes a cycle of it.
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(kinds="loop", grace=0.01), pytest.warns(ResourceWarning):
            loop = asyncio.new_event_loop()
            line = inspect.currentframe().f_lineno - 1
            if end is int:
                loop._remove_reader(loop._ssock)
            del loop
            end()
    (leak,) = caught.value.report
    assert (leak.state, leak.site.lineno) == ("destroyed", line)
    assert leak.why == "it was freed before anybody closed it"


def test_a_closed_loop_that_is_freed_is_none():
    with leakguard.guard(kinds="loop"):
        asyncio.new_event_loop().close()
        gc.collect()


def test_nothing_is_taken_down_that_no_check_asks_for():
    leakguard.install(kinds="loop")
    with pytest.warns(ResourceWarning):
        asyncio.new_event_loop()
        gc.collect()
    with leakguard.guard(kinds="loop"):
        pass
