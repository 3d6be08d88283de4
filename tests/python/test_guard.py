"""guard: blocks and functions that leave something behind."""

import asyncio
import gc
import inspect
import logging
import threading
import time
import warnings

import pytest

import leakguard
from leakguard import LeakError, LeakWarning, _verdict

from .conftest import line_of


async def sleeper():
    await asyncio.sleep(3600)  # where the task waits


def wait_for(event):
    event.wait()  # where the thread waits


def test_one_task_and_one_thread_are_reported_exactly(release):
    async def main():
        async with leakguard.guard(grace=0.05):
            asyncio.create_task(sleeper(), name="left")  # creates the task
            threading.Thread(target=wait_for, args=(release,), name="worker").start()  # the thread
            await asyncio.sleep(0)

    with pytest.raises(LeakError) as caught:
        asyncio.run(main())
    report = caught.value.report
    assert len(report) == 2
    task, thread = sorted(report, key=lambda leak: leak.kind)
    assert (task.kind, task.function, task.name, task.state) == (
        "task",
        "sleeper",
        "left",
        "waiting",
    )
    assert (task.site.filename, task.site.lineno) == (__file__, line_of("creates the task"))
    assert task.creation_stack[-1].name.endswith("create_task")
    assert next((frame.filename, frame.lineno) for frame in task.current_stack) == (
        __file__,
        line_of("where the task waits"),
    )
    assert task.current_stack[-1].name == "sleep"
    assert task.creator.kind == "task"
    assert task.creator.function.endswith("main")
    assert (thread.kind, thread.function, thread.name, thread.state) == (
        "thread",
        "wait_for",
        "worker",
        "running",
    )
    assert (thread.site.filename, thread.site.lineno) == (__file__, line_of("the thread"))
    names = [frame.name for frame in thread.current_stack]
    assert names[-1] == "Condition.wait"
    assert "wait_for" in names
    assert thread.creator.serial == task.creator.serial
    assert str(caught.value) == report.text()
    assert str(caught.value).startswith(
        "leakguard: 2 leaks since the block began (1 task, 1 thread; waited"
    )


def test_a_clean_block_waits_nothing_and_its_report_is_empty():
    pauses = []
    sleep = time.sleep
    time.sleep = pauses.append
    try:
        with leakguard.guard() as guarded:
            assert guarded.report is None
    finally:
        time.sleep = sleep
    assert pauses == []
    assert isinstance(guarded.report, leakguard.Report)
    assert len(guarded.report) == 0
    assert guarded.report.waited == 0.0


def test_a_first_look_longer_than_the_grace_still_gives_tasks_a_turn(monkeypatch):
    look = _verdict.look

    def slow(question):
        time.sleep(0.002)
        return look(question)

    async def end():
        pass

    async def main():
        async with leakguard.guard(grace=0.001):
            asyncio.create_task(end())

    monkeypatch.setattr(_verdict, "look", slow)
    asyncio.run(main())


def test_a_thread_that_ends_during_the_grace_is_no_leak():
    begun = threading.Event()

    def short():
        begun.set()
        time.sleep(0.05)

    with leakguard.guard():
        threading.Thread(target=short).start()
        begun.wait()


def test_a_cancelled_task_that_cleans_up_for_a_while_is_no_leak():
    async def stubborn():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.2)

    async def main():
        async with leakguard.guard() as guarded:
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(0)
            task.cancel()
        return guarded.report, task

    report, task = asyncio.run(main())
    assert not report
    assert task.cancelled()


def test_the_bodys_exception_goes_on_with_the_leaks_as_a_note(release):
    error = ValueError("from the body")
    with pytest.raises(ValueError, match="from the body") as caught:
        with leakguard.guard(grace=0):
            threading.Thread(target=wait_for, args=(release,)).start()
            raise error
    assert caught.value is error
    (note,) = error.__notes__
    assert note.startswith("leakguard: 1 leak since the block began")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_abrupt_end_is_looked_at_once(kind, release):
    with pytest.raises(kind) as caught:
        with leakguard.guard(grace=3600) as guarded:
            threading.Thread(target=wait_for, args=(release,)).start()
            raise kind
    assert len(guarded.report) == 1
    assert len(caught.value.__notes__) == 1


def test_a_cancelled_block_stays_cancelled_and_does_not_wait():
    async def body():
        async with leakguard.guard(grace=3600) as body.guarded:
            body.task = asyncio.create_task(sleeper())
            await asyncio.sleep(3600)

    async def main():
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        body.task.cancel()
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert len(body.guarded.report) == 1


def test_cancelling_the_check_itself_ends_it_with_a_note():
    async def body():
        async with leakguard.guard(grace=3600) as body.guarded:
            body.task = asyncio.create_task(sleeper())

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await body()
        body.task.cancel()

    asyncio.run(main())
    assert len(body.guarded.report) == 1


def test_overlapping_calls_of_one_decorated_coroutine_are_separate():
    @leakguard.guard(scope="descendants", grace=0.05)
    async def work(seconds, leak):
        if leak:
            work.left = asyncio.create_task(sleeper())
        await asyncio.sleep(seconds)
        return seconds

    async def main():
        results = await asyncio.gather(
            work(0.05, False), work(0.01, True), work(0.02, False), return_exceptions=True
        )
        work.left.cancel()
        return results

    first, second, third = asyncio.run(main())
    assert (first, third) == (0.05, 0.02)
    assert isinstance(second, LeakError)
    assert [leak.function for leak in second.report] == ["sleeper"]


def test_two_clean_overlapping_calls_are_clean():
    @leakguard.guard(grace=0.05)
    async def work(seconds):
        await asyncio.sleep(seconds)

    async def main():
        await asyncio.gather(work(0.03), work(0.01), work(0.02))

    asyncio.run(main())


def test_a_decorated_method_keeps_its_name_and_result():
    class Client:
        @leakguard.guard()
        def value(self, base, *, more):
            """Doc."""
            return base + more

        @leakguard.guard()
        async def later(self):
            return 7

    assert Client().value(1, more=2) == 3
    assert Client.value.__name__ == "value"
    assert Client.value.__doc__ == "Doc."
    assert inspect.iscoroutinefunction(Client.later)
    assert asyncio.run(Client().later()) == 7


def test_an_object_with_an_async_call_is_decorated_as_a_coroutine_function():
    class Handler:
        async def __call__(self):
            Handler.left = asyncio.create_task(sleeper())

    async def main():
        with pytest.raises(LeakError):
            await leakguard.guard(grace=0)(Handler())()
        Handler.left.cancel()

    asyncio.run(main())


def test_a_decorated_coroutine_reports_its_thread(release):
    @leakguard.guard(grace=0)
    async def work():
        threading.Thread(target=wait_for, args=(release,), daemon=True).start()

    with pytest.raises(LeakError, match="1 thread"):
        asyncio.run(work())


def test_the_inner_guard_reports_and_the_outer_stays_quiet(release):
    with leakguard.guard(grace=0) as outer:
        with pytest.raises(LeakError):
            with leakguard.guard(grace=0):
                threading.Thread(target=wait_for, args=(release,)).start()
    assert len(outer.report) == 0


def test_the_outer_guard_reports_what_was_born_outside_the_inner(release):
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0):
            threading.Thread(target=wait_for, args=(release,), name="outer").start()
            with leakguard.guard(grace=0):
                pass
    assert [leak.name for leak in caught.value.report] == ["outer"]


def test_one_guard_object_may_be_entered_by_two_tasks_at_once():
    shared = leakguard.guard(scope="descendants", grace=0.02, action="warn")

    async def first():
        async with shared as guarded:
            first.left = asyncio.create_task(sleeper())
            await asyncio.sleep(0.01)
        return guarded.report

    async def second():
        async with shared as guarded:
            await asyncio.sleep(0.03)
        return guarded.report

    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeakWarning)
            reports = await asyncio.gather(first(), second())
        first.left.cancel()
        return reports

    leaking, clean = asyncio.run(main())
    assert (len(leaking), len(clean)) == (1, 0)


def test_warn_warns_once_with_the_text_and_the_callers_line(release):
    with pytest.warns(LeakWarning) as caught:
        with leakguard.guard(action="warn", grace=0):
            threading.Thread(target=wait_for, args=(release,)).start()
    (warning,) = caught
    assert str(warning.message).startswith("leakguard: 1 leak since the block began")
    assert warning.filename == __file__


def test_log_writes_one_record_a_leak(release, caplog):
    with caplog.at_level(logging.WARNING, logger="leakguard"):
        with leakguard.guard(action="log", grace=0):
            for name in ("a", "b"):
                threading.Thread(target=wait_for, args=(release,), name=name).start()
    assert [record.leak["name"] for record in caplog.records] == ["a", "b"]
    assert {record.leak_kind for record in caplog.records} == {"thread"}


def test_cancel_cancels_waits_and_warns():
    ended = []

    async def careful():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.02)
            ended.append(True)

    async def main():
        with pytest.warns(LeakWarning, match="1 task"):
            async with leakguard.guard(action="cancel", grace=0.5):
                task = asyncio.create_task(careful())
                await asyncio.sleep(0)
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert ended == [True]


def test_a_callable_gets_the_report_only_where_there_are_leaks(release):
    reports = []
    with leakguard.guard(action=reports.append):
        pass
    assert reports == []
    with leakguard.guard(action=reports.append, grace=0):
        threading.Thread(target=wait_for, args=(release,)).start()
    assert [len(report) for report in reports] == [1]


def test_an_ignore_rule_hides_and_is_counted(release):
    rule = leakguard.ignore(function="wait_for", reason="ends with the test")
    with leakguard.guard(ignore=[rule]) as guarded:
        threading.Thread(target=wait_for, args=(release,)).start()
    assert not guarded.report
    ((_, reason, count),) = guarded.report.hidden
    assert (reason, count) == ("ends with the test", 1)


def test_kinds_limits_what_is_looked_for(release):
    with leakguard.guard(kinds="task", grace=0):
        threading.Thread(target=wait_for, args=(release,)).start()


def test_a_background_thread_that_was_there_before_is_no_leak(release):
    thread = threading.Thread(target=wait_for, args=(release,))
    thread.start()
    with leakguard.guard(grace=0):
        pass
    assert thread.is_alive()


def test_a_sync_guard_in_a_running_loop_is_refused_unless_it_need_not_wait():
    async def main():
        with pytest.raises(RuntimeError, match="async with guard"):
            leakguard.guard().__enter__()
        with leakguard.guard(grace=0):
            pass
        with leakguard.guard(kinds="thread"):
            pass

    asyncio.run(main())


def test_a_guard_may_be_left_in_another_task():
    async def fixture():
        async with leakguard.guard(grace=0.02, scope="descendants") as fixture.guarded:
            fixture.left = asyncio.create_task(sleeper())
            yield

    async def main():
        generator = fixture()
        await asyncio.create_task(generator.__anext__())
        with pytest.raises(LeakError):
            await asyncio.create_task(anext(generator))
        fixture.left.cancel()

    asyncio.run(main())
    assert [leak.function for leak in fixture.guarded.report] == ["sleeper"]


def test_a_guard_that_lost_a_record_does_not_say_clean(monkeypatch):
    from leakguard import _tracking

    monkeypatch.setattr(_tracking, "_DEPOT_BYTES", 0)  # the least: one page

    async def main():
        leakguard.install()
        async with leakguard.guard() as guarded:
            tasks = []
            for number in range(100):
                space = {"asyncio": asyncio, "sleeper": sleeper}
                exec(f"def make_{number}():\n return asyncio.create_task(sleeper())", space)
                tasks.append(space[f"make_{number}"]())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return guarded.report

    report = asyncio.run(main())
    assert not report
    (note,) = report.notes
    assert "dropped" in note
    assert "note" in report.text()
    assert not report.text().startswith("leakguard: no leaks since")


def test_uninstalling_inside_a_guard_never_says_clean():
    with pytest.raises(RuntimeError, match="uninstalled"):
        with leakguard.guard():
            leakguard.uninstall()
    error = KeyError("mine")
    with pytest.raises(KeyError):
        with leakguard.guard():
            leakguard.uninstall()
            raise error
    assert "uninstalled" in error.__notes__[0]


def test_a_guard_does_not_keep_a_leaked_task_alive():
    async def main():
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(grace=0):
                asyncio.create_task(sleeper(), name="to be freed")
        return caught.value.report

    report = asyncio.run(main())
    gc.collect()
    names = [leak.name for leak in leakguard.snapshot(kinds="task")]
    assert len(report) == 1
    assert "to be freed" not in names


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"action": "explode"}, ValueError, ["raise", "warn", "log", "cancel", "explode"]),
        ({"action": None}, ValueError, ["raise", "None"]),
        ({"grace": -1}, ValueError, ["grace", "0 or more", "-1"]),
        ({"grace": float("nan")}, ValueError, ["grace", "nan"]),
        ({"grace": float("inf")}, ValueError, ["grace", "inf"]),
        ({"grace": "1"}, TypeError, ["grace", "str"]),
        ({"kinds": "tasks"}, ValueError, ["tasks", "task", "thread"]),
        ({"kinds": []}, ValueError, ["kind", "task"]),
        ({"kinds": [1]}, TypeError, ["int"]),
        ({"scope": "thread"}, ValueError, ["process", "descendants", "thread"]),
        ({"ignore": "x"}, TypeError, ["leakguard.ignore("]),
        ({"ignore": 3}, TypeError, ["leakguard.ignore("]),
        ({"label": 3}, TypeError, ["label", "int"]),
    ],
)
def test_each_wrong_argument_gets_an_error_that_says_what_is_allowed(options, error, words):
    with pytest.raises(error) as caught:
        leakguard.guard(**options)
    for word in words:
        assert word in str(caught.value)


def test_what_cannot_be_decorated_is_refused():
    with pytest.raises(TypeError, match="brackets"):

        @leakguard.guard
        def plain():
            pass

    def generator():
        yield

    async def async_generator():
        yield

    for function in (generator, async_generator, dict, 3, staticmethod(len), classmethod(len)):
        with pytest.raises(TypeError, match="guard"):
            leakguard.guard()(function)
