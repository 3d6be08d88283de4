"""Tasks that are freed while pending are leaks of the block they were born in."""

import asyncio
import gc
import json
import os
import threading
import weakref

import pytest

import leakguard
from leakguard import LeakError, _core, _ledger

from .conftest import line_of


@pytest.fixture
def loop():
    """A loop whose handler keeps what it is told, not the task."""
    loop = asyncio.new_event_loop()
    told = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    loop.told = told
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def wait_for_ever():
    await asyncio.get_running_loop().create_future()


def drop(loop, make=None, count=1):
    """Starts tasks and lets go of them."""

    async def main():
        for _ in range(count):
            if make is None:
                asyncio.get_running_loop().create_task(wait_for_ever(), name="gone")  # dropped
            else:
                make()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    gc.collect()


def test_a_task_that_everybody_dropped(loop):
    with pytest.raises(LeakError) as caught:
        with leakguard.guard():
            drop(loop)
    assert loop.told == ["Task was destroyed but it is pending!"]
    (leak,) = caught.value.report
    assert (leak.kind, leak.name, leak.state) == ("task", "gone", "destroyed")
    assert leak.cause == "destroyed-pending"
    assert leak.why == "it was freed while pending: nothing held it any more"
    assert leak.function == "wait_for_ever"
    assert leak.site.lineno == line_of("dropped")
    assert leak.creator.function.endswith("main")
    assert caught.value.report.waited == 0


def test_the_text_says_it(loop):
    mark = leakguard.checkpoint()
    drop(loop)
    text = mark.leaks().text()
    assert "destroyed" in text
    assert "it was freed while pending" in text


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_one_whose_last_reference_goes(loop):
    async def never_begun():
        pass

    mark = leakguard.checkpoint()
    gc.disable()
    try:
        loop.create_task(never_begun())
        loop._ready.clear()
        (leak,) = mark.leaks()
    finally:
        gc.enable()
    assert leak.state == "destroyed"
    assert leak.current_stack[-1].name.endswith("never_begun")


def test_a_subclass(loop):
    class Own(asyncio.Task):
        def get_name(self):
            raise RuntimeError("not on half a task")

    mark = leakguard.checkpoint()
    drop(loop, lambda: Own(wait_for_ever(), loop=loop))
    (leak,) = mark.leaks()
    assert (leak.state, leak.function) == ("destroyed", "wait_for_ever")


def test_the_pure_python_task(loop):
    mark = leakguard.checkpoint()
    drop(loop, lambda: asyncio.tasks._PyTask(wait_for_ever(), loop=loop, name="pure"))
    (leak,) = mark.leaks()
    assert (leak.state, leak.name, leak.function) == ("destroyed", "pure", "wait_for_ever")


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_the_pure_python_task_whose_last_reference_goes(loop):
    async def never_begun():
        pass

    mark = leakguard.checkpoint()
    asyncio.tasks._PyTask(never_begun(), loop=loop, name="pure")
    loop._ready.clear()
    gc.collect()
    (leak,) = mark.leaks()
    assert (leak.state, leak.name) == ("destroyed", "pure")


def test_all_are_counted_once(loop):
    leakguard.install()
    before = leakguard.stats()["task"]
    with pytest.raises(LeakError) as outer:
        with leakguard.guard():
            drop(loop, count=3)
            with pytest.raises(LeakError) as inner:
                with leakguard.guard():
                    drop(loop, count=100)
    assert len(inner.value.report) == 100
    assert len(outer.value.report) == 3
    after = leakguard.stats()["task"]
    assert after["created"] - before["created"] == 105  # two are `main`
    assert after["ended"] - before["ended"] == 105
    assert after["live"] == before["live"]


def test_a_second_look_of_the_same_checkpoint_sees_it_too(loop):
    mark = leakguard.checkpoint()
    drop(loop)
    assert [len(mark.leaks()), len(mark.leaks())] == [1, 1]


def test_one_born_before_the_checkpoint_is_none_of_its_leaks(loop):
    outer = leakguard.checkpoint()
    kept = []
    drop(loop, lambda: kept.append(loop.create_task(wait_for_ever())))
    mark = leakguard.checkpoint()
    kept.clear()
    gc.collect()
    assert len(mark.leaks()) == 0
    assert len(outer.leaks()) == 1


def test_the_scope_of_descendants():
    async def dropping():
        asyncio.get_running_loop().create_task(wait_for_ever())
        await asyncio.sleep(0)
        gc.collect()

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with leakguard.guard(scope="descendants", action=lambda _: None) as mine:
            await dropping()
            await asyncio.sleep(0.01)
        return mine.report

    async def both():
        async with leakguard.guard(scope="descendants", action=lambda _: None) as guard:
            inner = await asyncio.create_task(main())
        return len(inner), len(guard.report)

    assert asyncio.run(both()) == (1, 0)


def test_other_kinds_do_not_ask(loop):
    mark = leakguard.checkpoint()
    drop(loop)
    assert len(mark.leaks(kinds="thread")) == 0


def test_a_rule_hides_it(loop):
    mark = leakguard.checkpoint()
    drop(loop)
    rule = leakguard.ignore(function="wait_for_ever", reason="known")
    report = mark.leaks(ignore=[rule])
    assert len(report) == 0
    assert report.to_dict()["hidden"][0]["count"] == 1


def test_a_task_that_is_done_is_none(loop):
    async def at_once():
        pass

    with leakguard.guard():
        drop(loop, lambda: loop.create_task(at_once()), count=10)


def test_done_tasks_in_garbage_cycles_are_none(loop):
    class Around:
        pass

    async def at_once(around):
        return around

    def make():
        around = Around()
        around.task = loop.create_task(at_once(around))
        # First in the collector's list, the task is emptied before its last reference goes.
        around.again = loop.create_task(at_once(around.task))

    with leakguard.guard():
        drop(loop, make, count=10)


def test_a_task_that_was_cancelled_and_awaited_is_none(loop):
    async def main():
        task = loop.create_task(wait_for_ever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with leakguard.guard():
        loop.run_until_complete(main())
        gc.collect()


def test_a_task_that_is_resurrected_lives_on(loop):
    kept = []
    loop.set_exception_handler(lambda _, context: kept.append(context["task"]))
    mark = leakguard.checkpoint()
    drop(loop)
    (leak,) = mark.leaks()
    assert len(kept) == 1
    assert leak.state != "destroyed"


def test_one_of_which_asyncio_says_that_it_is_no_fault(loop):
    def make():
        loop.create_task(wait_for_ever())._log_destroy_pending = False

    with leakguard.guard():
        drop(loop, make)
    assert loop.told == []


def test_one_that_was_abandoned_is_told_as_that():
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    kept = []
    mark = leakguard.checkpoint()
    drop(loop, lambda: kept.append(loop.create_task(wait_for_ever())))
    loop.close()
    kept.clear()
    gc.collect()
    (leak,) = mark.leaks()
    assert leak.state == "abandoned"


def test_nothing_is_kept_where_nobody_can_ask(loop):
    mark = leakguard.checkpoint()
    del mark
    with leakguard.guard():
        pass
    drop(loop)
    assert loop.told
    assert _ledger._abandoned == {}
    assert len(leakguard.checkpoint().leaks()) == 0


def test_beyond_the_limit_they_are_counted(loop, monkeypatch):
    monkeypatch.setattr("leakguard._destroyed._LIMIT", 5)
    mark = leakguard.checkpoint()
    drop(loop, count=8)
    report = mark.leaks()
    assert len(report) == 5
    assert "3 records were dropped since" in report.text()


def test_no_object_of_the_program_is_kept(loop):
    class Data:
        pass

    async def hold(data):
        await asyncio.get_running_loop().create_future()

    gone = []

    def make():
        data = Data()
        gone.append(weakref.ref(data))
        loop.create_task(hold(data))

    mark = leakguard.checkpoint()
    drop(loop, make)
    assert len(mark.leaks()) == 1
    gc.collect()
    assert gone[0]() is None


def test_uninstall_forgets_them(loop):
    leakguard.checkpoint()
    kept = leakguard.checkpoint()
    drop(loop)
    leakguard.uninstall()
    drop(loop)
    with pytest.raises(RuntimeError):
        kept.leaks()
    assert len(leakguard.checkpoint().leaks()) == 0


def test_many_threads_drop_tasks():
    def work():
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        drop(loop, count=20)
        loop.close()

    mark = leakguard.checkpoint()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    states = [leak.state for leak in mark.leaks()]
    assert len(states) == 80
    assert set(states) <= {"destroyed", "abandoned"}
    assert "destroyed" in states


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_does_not_inherit_them(loop):
    mark = leakguard.checkpoint()
    drop(loop)
    pid = os.fork()
    if pid == 0:
        clean = len(leakguard.checkpoint().leaks()) == 0
        drop(loop)
        os._exit(0 if clean else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(mark.leaks()) == 1


PROGRAM = """
import asyncio, gc

async def wait_for_ever():
    await asyncio.get_running_loop().create_future()

async def main():
    asyncio.get_running_loop().create_task(wait_for_ever(), name="gone")
    await asyncio.sleep(0)
    gc.collect()

{run}
"""


@pytest.mark.parametrize(
    ("run_line", "reason"),
    [
        ("asyncio.run(main())", "loop end"),
        ("loop = asyncio.new_event_loop(); loop.run_until_complete(main())", "shutdown"),
    ],
)
def test_the_environment_mode_reports_them(program, tmp_path, run_line, reason):
    report = tmp_path / "report.jsonl"
    done = program(
        PROGRAM.format(run=run_line),
        LEAKGUARD="exit",
        LEAKGUARD_REPORT=str(report),
    )
    assert done.returncode == 23
    assert "Task was destroyed but it is pending!" in done.stderr
    (line,) = map(json.loads, report.read_text().splitlines())
    assert (line["name"], line["state"], line["reason"]) == ("gone", "destroyed", reason)
    assert line["cause"] == "destroyed-pending"


def test_tasks_freed_while_the_interpreter_ends_are_not_told(program):
    text = PROGRAM.format(run="kept = []\nleak = asyncio.new_event_loop()")
    done = program(
        text
        + "leak.create_task(wait_for_ever())\nimport leakguard\nmark = leakguard.checkpoint()\n"
    )
    assert done.returncode == 0
    assert "leakguard" not in done.stderr


def test_the_core_calls_nobody_unless_asked(loop):
    leakguard.install()
    told = []
    _core.set_destroyed(lambda *details: told.append(details[-2]))
    drop(loop)
    _core.want_destroyed(True)
    drop(loop)
    _core.want_destroyed(False)
    drop(loop)
    assert told == ["gone"]
    assert len(loop.told) == 3
