"""How much is alive at once: exact numbers and lines, and what must not be counted."""

import asyncio
import gc
import sys
import threading
from pathlib import Path

import pytest

import leakguard
from leakguard import _core

from .conftest import line_of

HERE = Path(__file__).name


def exceeded(limits, function, **options):
    """What function() exceeded, as (kind, peak, line of the site, its share, its own peak)."""
    with leakguard.guard(max_live=limits, action=lambda report: None, **options) as guard:
        function()
    assert guard.report is not None
    return [
        (it.kind, it.peak, it.site and it.site[1], it.site_share, it.site_peak)
        for it in guard.report.fanout
    ]


async def burst(count):
    tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(count)]  # burst
    await asyncio.gather(*tasks)


async def one_by_one(count, work):
    kept = []
    for _ in range(count):
        kept.append(asyncio.create_task(work()))  # one by one
        await asyncio.wait(kept[-1:])
    assert len(kept) == count


def start_threads(count):
    event = threading.Event()
    threads = [threading.Thread(target=event.wait) for _ in range(count)]
    for thread in threads:
        thread.start()  # threads
    event.set()
    for thread in threads:
        thread.join()


def test_a_burst_of_tasks_is_named_with_its_exact_number_and_line():
    with pytest.raises(leakguard.FanoutError) as caught, leakguard.guard(max_live={"task": 100}):
        asyncio.run(burst(500))
    (found,) = caught.value.report.fanout
    # The main task of asyncio.run is one of them.
    assert (found.kind, found.limit, found.peak) == ("task", 100, 501)
    assert (found.site_share, found.site_peak) == (500, 500)
    assert found.site[1] == line_of("burst")
    assert "fan-out: 501 tasks alive at once, 100 allowed; 500 of them created at " in str(
        caught.value
    )
    assert f"{HERE}:{line_of('burst')} in burst" in str(caught.value)
    assert not caught.value.report


def test_exactly_the_limit_is_allowed_and_one_more_is_not():
    assert exceeded({"task": 51}, lambda: asyncio.run(burst(50))) == []
    assert exceeded({"task": 50}, lambda: asyncio.run(burst(50))) == [
        ("task", 51, line_of("burst"), 50, 50)
    ]
    assert exceeded({"task": 0}, lambda: None) == []


def test_threads_are_counted_too():
    assert exceeded({"thread": 10}, lambda: start_threads(10)) == []
    assert exceeded({"thread": 9}, lambda: start_threads(10)) == [
        ("thread", 10, line_of("threads"), 10, 10)
    ]


def test_threads_one_after_the_other_are_one():
    def sequential():
        for _ in range(100):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()

    assert exceeded({"thread": 1}, sequential) == []


async def _returns():
    pass


async def _waits():
    await asyncio.sleep(0.0001)


async def _raises():
    await asyncio.sleep(0)
    raise ValueError


async def _is_cancelled():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def _waits_for_a_task():
    await asyncio.create_task(_returns())


@pytest.mark.parametrize(
    ("work", "alive"),
    [(_returns, 2), (_waits, 2), (_raises, 2), (_is_cancelled, 2), (_waits_for_a_task, 3)],
)
def test_tasks_that_are_done_count_no_more_though_a_list_holds_them(work, alive):
    assert exceeded({"task": alive}, lambda: asyncio.run(one_by_one(50, work))) == []
    found = exceeded({"task": alive - 1}, lambda: asyncio.run(one_by_one(50, work)))
    assert [it[:2] for it in found] == [("task", alive)]


def test_tasks_that_are_cancelled_before_they_start_count_no_more():
    async def cancel_each():
        kept = []
        for _ in range(20):
            kept.append(asyncio.create_task(_returns()))
            kept[-1].cancel()
            await asyncio.wait(kept[-1:])

    assert exceeded({"task": 2}, lambda: asyncio.run(cancel_each())) == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before 3.12")
def test_eager_tasks_that_end_at_once_or_later_count_while_they_run():
    async def eager():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        kept = [asyncio.create_task(_returns()) for _ in range(20)]
        for _ in range(20):
            kept.append(asyncio.create_task(_waits()))
            await kept[-1]

    assert exceeded({"task": 2}, lambda: asyncio.run(eager())) == []


def test_tasks_of_uvloop_that_are_done_count_no_more():
    uvloop = pytest.importorskip("uvloop")

    def run():
        loop = uvloop.new_event_loop()
        loop.run_until_complete(one_by_one(50, _waits))
        loop.run_until_complete(burst(10))
        loop.close()

    assert exceeded({"task": 11}, run) == []
    assert exceeded({"task": 10}, run) == [("task", 11, line_of("burst"), 10, 10)]


def test_tasks_that_wait_for_a_future_of_another_class_count_no_more_when_done():
    class Plain:
        """Awaitable by asyncio's protocol, and no C future."""

        _asyncio_future_blocking = False

        def __init__(self):
            self.callbacks = []
            self.loop = asyncio.get_running_loop()

        def get_loop(self):
            return self.loop

        def add_done_callback(self, callback, *, context=None):
            self.loop.call_soon(callback, self, context=context)

        def result(self):
            return None

        def __await__(self):
            self._asyncio_future_blocking = True
            yield self

    async def waits_for_plain():
        await Plain()

    assert exceeded({"task": 2}, lambda: asyncio.run(one_by_one(20, waits_for_plain))) == []


def test_what_was_there_before_is_not_charged():
    async def main():
        older = [asyncio.create_task(asyncio.sleep(60)) for _ in range(50)]
        await asyncio.sleep(0)
        async with leakguard.guard(max_live={"task": 5}):
            for task in older[:10]:
                task.cancel()
            await asyncio.wait(older[:10])
            await burst(5)
            del older[:10]
            await burst(5)
        for task in older:
            task.cancel()
        await asyncio.wait(older)

    asyncio.run(main())


def test_a_task_that_could_not_be_made_is_not_counted():
    async def main():
        held = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        for _ in range(5):
            with pytest.raises(TypeError):
                asyncio.Task(None)
        await asyncio.wait(held)

    assert exceeded({"task": 4}, lambda: asyncio.run(main())) == []


def test_guards_that_overlap_count_apart():
    async def block(count, limit, entered, leave):
        async with leakguard.guard(max_live={"task": limit}, action=lambda report: None) as guard:
            entered.set()
            await burst(count)
            await leave.wait()
        return [it.peak for it in guard.report.fanout]

    async def main():
        first, second, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()
        outer = asyncio.create_task(block(3, 0, first, leave))
        await first.wait()
        await asyncio.sleep(0.001)
        inner = asyncio.create_task(block(8, 0, second, leave))
        await second.wait()
        await asyncio.sleep(0.001)
        leave.set()
        # The second's task was born in the first; itself it is no part of its own block.
        return await outer, await inner

    assert asyncio.run(main()) == ([9], [8])


def test_two_blocks_of_scope_descendants_do_not_blame_each_other():
    async def block(count):
        async with leakguard.guard(
            max_live={"task": 0}, scope="descendants", action=lambda report: None
        ) as guard:
            await burst(count)
        return [it.peak for it in guard.report.fanout]

    async def main():
        return await asyncio.gather(block(3), block(8))

    assert asyncio.run(main()) == [[3], [8]]


def test_blocks_inside_a_scoped_block_are_counted_in_it():
    async def main():
        async with leakguard.guard(
            max_live={"task": 1}, scope="descendants", action=lambda report: None
        ) as outer:
            async with leakguard.guard(
                max_live={"task": 4}, scope="descendants", action=lambda report: None
            ) as inner:
                await burst(4)
        return [it.peak for it in outer.report.fanout], [it.peak for it in inner.report.fanout]

    assert asyncio.run(main()) == ([4], [])


def test_sites_share_the_peak_and_stacks_of_one_line_are_one_site():
    def other():
        return [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]  # other

    def more(depth):
        return more(depth - 1) if depth else asyncio.create_task(asyncio.sleep(0))  # deep

    async def main():
        tasks = other() + [more(depth) for depth in range(7)]
        await asyncio.wait(tasks)

    assert exceeded({"task": 5}, lambda: asyncio.run(main())) == [
        ("task", 11, line_of("deep"), 7, 7)
    ]


def test_a_leak_and_a_limit_are_one_error_that_tells_both(release):
    with pytest.raises(leakguard.FanoutError) as caught:
        with leakguard.guard(max_live={"thread": 0}, grace=0):
            threading.Thread(target=release.wait).start()
    assert len(caught.value.report) == 1
    text = str(caught.value)
    assert text.startswith(
        "leakguard: 1 leak since the block began (1 thread; waited 0 s); 1 limit"
    )
    assert "fan-out: 1 thread alive at once, 0 allowed" in text


def test_the_error_of_the_block_wins_with_a_note():
    with pytest.raises(KeyError) as caught, leakguard.guard(max_live={"task": 1}):
        asyncio.run(burst(3))
        raise KeyError
    assert "fan-out: 4 tasks alive at once, 1 allowed" in caught.value.__notes__[0]


def test_warn_and_log_tell_of_a_limit(caplog):
    with pytest.warns(leakguard.LeakWarning, match="fan-out: 4 tasks alive at once, 1 allowed"):
        with leakguard.guard(max_live={"task": 1}, action="warn"):
            asyncio.run(burst(3))
    with pytest.warns(leakguard.LeakWarning, match="fan-out: 4 tasks"):
        with leakguard.guard(max_live={"task": 1}, action="cancel"):
            asyncio.run(burst(3))
    with leakguard.guard(max_live={"task": 1}, action="log"):
        asyncio.run(burst(3))
    (record,) = caplog.records
    assert record.getMessage().startswith("fan-out: 4 tasks alive at once, 1 allowed")
    assert record.fanout["peak"] == 4


def test_a_decorated_function_counts_each_call_apart():
    @leakguard.guard(max_live={"task": 4})
    async def call():
        await burst(3)

    async def main():
        for _ in range(3):
            await call()

    asyncio.run(main())


def test_a_kind_that_is_named_is_tracked_from_the_entry():
    leakguard.install(kinds="task")
    assert exceeded({"thread": 2}, lambda: start_threads(3), kinds="task") == [
        ("thread", 3, line_of("threads"), 3, 3)
    ]


def test_a_checkpoint_counts_what_it_named_and_nothing_else():
    mark = leakguard.checkpoint("burst", max_live={"task": 10})
    asyncio.run(burst(10))
    (found,) = mark.leaks().fanout
    assert found.peak == 11
    assert mark.leaks(max_live={"task": 11}).fanout == ()
    with pytest.raises(leakguard.FanoutError):
        mark.assert_clean()
    mark.assert_clean(max_live={"task": 11})
    with pytest.raises(ValueError, match="kind 'thread' is not counted since this checkpoint"):
        mark.leaks(max_live={"thread": 1})
    with pytest.raises(ValueError, match="counts the whole process"):
        mark.leaks(scope="descendants", kinds="thread")
    with pytest.raises(ValueError, match="kind 'task' is not counted since this checkpoint"):
        leakguard.checkpoint().leaks(max_live={"task": 1})


def test_a_checkpoint_in_async_code_counts_from_its_moment():
    async def main():
        await burst(30)
        mark = leakguard.checkpoint(max_live={"task": 4})
        await burst(5)
        with pytest.raises(leakguard.FanoutError, match="5 tasks alive at once, 4 allowed"):
            await mark.assert_clean_async()

    asyncio.run(main())


def test_a_cycle_counts_from_call_to_call():
    async def main():
        await leakguard.assert_stable_async("fan-out", max_live={"task": 5})
        await burst(5)
        await leakguard.assert_stable_async("fan-out", max_live={"task": 5})
        await burst(6)
        with pytest.raises(leakguard.FanoutError, match="6 tasks alive at once, 5 allowed"):
            await leakguard.assert_stable_async("fan-out", max_live={"task": 5})
        await burst(2)
        await leakguard.assert_stable_async("fan-out", max_live={"task": 5})

    asyncio.run(main())


def test_all_is_put_back_when_nobody_counts_any_more():
    assert not _core.hooks()["task_ends"]
    with leakguard.guard(max_live={"task": 10}):
        asyncio.run(burst(1))
        assert _core.hooks()["task_ends"]
        with leakguard.guard(max_live={"task": 10}):
            pass
        assert _core.hooks()["task_ends"]
        with leakguard.guard(max_live={"thread": 10}):
            pass
    assert not _core.hooks()["task_ends"]
    mark = leakguard.checkpoint(max_live={"task": 1})
    assert _core.hooks()["task_ends"]
    del mark
    gc.collect()
    assert not _core.hooks()["task_ends"]


def test_uninstall_while_somebody_counts_ends_it():
    guard = leakguard.guard(max_live={"task": 1})
    guard.__enter__()
    mark = leakguard.checkpoint(max_live={"task": 1})
    asyncio.run(burst(3))
    leakguard.uninstall()
    assert not _core.hooks()["task_ends"]
    leakguard.install()
    asyncio.run(burst(3))
    with pytest.raises(RuntimeError, match="was uninstalled inside this guard"):
        guard.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="was uninstalled since this checkpoint"):
        mark.leaks()
    del mark
    assert exceeded({"task": 3}, lambda: asyncio.run(burst(3))) == [
        ("task", 4, line_of("burst"), 3, 3)
    ]


def test_a_guard_entered_before_asyncio_is_imported_counts(program):
    result = program(
        """
import leakguard
with leakguard.guard(max_live={"task": 2}, action=lambda report: print(report.fanout[0].peak)):
    import asyncio

    async def main():
        kept = []
        for _ in range(5):
            kept.append(asyncio.create_task(asyncio.sleep(0.0001)))
            await kept[-1]
        await asyncio.gather(*[asyncio.create_task(asyncio.sleep(0)) for _ in range(3)])

    asyncio.run(main())
"""
    )
    assert (result.stdout, result.stderr) == ("4\n", "")


def test_a_forked_child_is_not_checked_and_the_parent_counts_on(program):
    result = program(
        """
import asyncio, os, leakguard

async def burst(count):
    await asyncio.gather(*[asyncio.create_task(asyncio.sleep(0)) for _ in range(count)])

with leakguard.guard(max_live={"task": 2}, action=lambda report: print(report.fanout[0].peak)):
    asyncio.run(burst(3))
    if not os.fork():
        asyncio.run(burst(30))
        os._exit(0)
    assert os.wait()[1] == 0
"""
    )
    assert (result.stdout, result.stderr) == ("4\n", "")


def test_a_test_that_bursts_a_limit_is_an_error_in_its_teardown(suite):
    found = suite(
        test_it="""
            import asyncio
            import pytest

            async def burst(count):
                await asyncio.gather(*[asyncio.create_task(asyncio.sleep(0)) for _ in range(count)])

            @pytest.mark.leakguard(max_live={"task": 4})
            def test_within():
                asyncio.run(burst(3))

            @pytest.mark.leakguard(max_live={"task": 3})
            def test_beyond():
                asyncio.run(burst(3))

            @pytest.mark.leakguard(max_live={"tasks": 3})
            def test_wrong():
                pass
        """
    )
    assert found.clean == ["test_within"]
    assert found.leaking == ["test_beyond"]
    assert found.ended("error") == ["test_wrong"]
    assert "fan-out: 4 tasks alive at once, 3 allowed; 3 of them created at test_it.py:6" in (
        found.text
    )
    assert "unknown kind 'tasks'" in found.text
    assert "1 test  fan-out of task, created at test_it.py:6 in burst" in found.text
    assert "leakguard: 2 tests checked, no leaks, a limit exceeded at 1 site" in found.text


def test_a_wider_fixture_is_not_charged_to_the_test_that_sets_it_up(suite):
    found = suite(
        test_it="""
            import threading
            import pytest

            @pytest.fixture(scope="session")
            def workers():
                event = threading.Event()
                threads = [threading.Thread(target=event.wait) for _ in range(5)]
                for thread in threads:
                    thread.start()
                yield
                event.set()
                for thread in threads:
                    thread.join()

            @pytest.mark.leakguard(max_live={"thread": 0})
            def test_uses_it(workers):
                pass
        """
    )
    assert found.clean == ["test_uses_it"]
