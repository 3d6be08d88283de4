"""Every task is recorded once, however it was made, and leaves with its object."""

import asyncio
import gc
import json
import sys
import threading

import pytest

import leakguard
from leakguard import _core

from .conftest import line_of


async def sleeper():
    await asyncio.sleep(3600)


class BeforeWithout(asyncio.Task):
    """Defined before any installation, with no __init__ of its own."""


class BeforeWith(asyncio.Task):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def tasks_since(point):
    return list(point.leaks(kinds="task"))


async def end(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def by_create_task(coroutine):
    return asyncio.create_task(coroutine)


def by_loop(coroutine):
    return asyncio.get_running_loop().create_task(coroutine)


def by_ensure_future(coroutine):
    return asyncio.ensure_future(coroutine)


def by_constructor(coroutine):
    return asyncio.Task(coroutine, loop=asyncio.get_running_loop())


def by_keyword(coroutine):
    return asyncio.Task(coro=coroutine, name="named")


def by_gather(coroutine):
    group = asyncio.gather(coroutine)
    (task,) = [task for task in asyncio.all_tasks() if task.get_coro() is coroutine]
    task.group = group
    return task


def by_subclass_before(coroutine):
    return BeforeWithout(coroutine, loop=asyncio.get_running_loop())


def by_subclass_before_with_init(coroutine):
    return BeforeWith(coroutine, loop=asyncio.get_running_loop())


def by_subclass_after(coroutine):
    class After(asyncio.Task):
        pass

    return After(coroutine, loop=asyncio.get_running_loop())


def by_subclass_after_with_init(coroutine):
    class After(asyncio.Task):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    return After(coroutine, loop=asyncio.get_running_loop())


def by_subclass_of_subclass(coroutine):
    class Deeper(BeforeWith):
        pass

    return Deeper(coroutine, loop=asyncio.get_running_loop())


def by_pure_python_task(coroutine):
    return asyncio.tasks._PyTask(coroutine, loop=asyncio.get_running_loop())


def by_factory(coroutine):
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **kwargs: BeforeWith(coro, loop=loop, **kwargs))
    try:
        return loop.create_task(coroutine)
    finally:
        loop.set_task_factory(None)


WAYS = [
    by_create_task,
    by_loop,
    by_ensure_future,
    by_constructor,
    by_keyword,
    by_gather,
    by_subclass_before,
    by_subclass_before_with_init,
    by_subclass_after,
    by_subclass_after_with_init,
    by_subclass_of_subclass,
    by_pure_python_task,
    by_factory,
]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_make_a_task_is_seen_exactly_once(way):
    async def main():
        point = leakguard.checkpoint()
        before = leakguard.stats()["task"]["created"]
        task = way(sleeper())
        await asyncio.sleep(0)
        found = tasks_since(point)
        created = leakguard.stats()["task"]["created"] - before
        name = task.get_name()
        await end(task)
        group = getattr(task, "group", None)
        if group is not None:
            await asyncio.gather(group, return_exceptions=True)
        return created, [(leak.function, leak.name) for leak in found], name

    created, found, name = asyncio.run(main())
    assert created == 1
    assert found == [("sleeper", name)]


def test_a_task_group_child_is_seen_exactly_once():
    async def main():
        point = leakguard.checkpoint()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sleeper())
            await asyncio.sleep(0)
            found = tasks_since(point)
            task.cancel()
        return [leak.function for leak in found]

    assert asyncio.run(main()) == ["sleeper"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_is_the_creator_of_what_its_first_step_creates():
    async def parent():
        parent.child = asyncio.create_task(sleeper(), name="child")
        await asyncio.sleep(3600)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        point = leakguard.checkpoint()
        task = asyncio.create_task(parent(), name="parent")
        found = {leak.name: leak for leak in tasks_since(point)}
        await end(task, parent.child)
        return found

    found = asyncio.run(main())
    assert set(found) == {"parent", "child"}
    assert found["child"].creator.serial == found["parent"].serial


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_that_ended_in_its_first_step_stays_known_as_a_creator():
    async def parent():
        parent.child = asyncio.create_task(sleeper(), name="child")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        point = leakguard.checkpoint()
        task = asyncio.create_task(parent(), name="parent")
        while_it_is_an_object = tasks_since(point)
        del task
        after = tasks_since(point)
        await end(parent.child)
        return while_it_is_an_object, after

    for found in asyncio.run(main()):
        (leak,) = found
        creator = leak.creator
        assert (creator.name, creator.ended) == ("parent", "returned")
        assert creator.function.endswith("parent")


def test_a_task_whose_creation_fails_is_taken_back():
    async def main():
        leakguard.install()
        before = leakguard.stats()["task"]
        with pytest.raises(TypeError, match="a coroutine was expected"):
            asyncio.Task(42)
        return before, leakguard.stats()["task"]

    before, after = asyncio.run(main())
    # (What an earlier test left may end meanwhile.)
    assert after["created"] == before["created"]


def test_calling_init_again_makes_no_second_record():
    async def main():
        point = leakguard.checkpoint()
        task = asyncio.create_task(sleeper())
        second = sleeper()
        unused = task.get_coro()
        try:
            task.__init__(second)
        except RuntimeError:  # 3.15 refuses
            unused = second
        found = tasks_since(point)
        unused.close()
        await end(task)
        return len(found)

    assert asyncio.run(main()) == 1


def test_a_task_on_a_loop_of_another_thread_is_seen():
    started = threading.Event()
    controls = {}

    async def other():
        controls["stop"] = asyncio.Event()
        controls["loop"] = asyncio.get_running_loop()
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        started.set()
        await controls["stop"].wait()
        await end(task)

    point = leakguard.checkpoint()
    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    started.wait()
    found = tasks_since(point)
    controls["loop"].call_soon_threadsafe(controls["stop"].set)
    thread.join()
    assert [leak.function.rpartition(".")[2] for leak in found] == ["other", "sleeper"]


def test_uvloops_tasks_are_seen_with_their_site():
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no wheel for this version yet")

    async def main():
        point = leakguard.checkpoint()
        task = asyncio.create_task(sleeper())  # the uvloop task
        await asyncio.sleep(0)
        found = tasks_since(point)
        await end(task)
        return found

    loop = uvloop.new_event_loop()
    try:
        (leak,) = loop.run_until_complete(main())
    finally:
        loop.close()
    assert leak.site.lineno == line_of("the uvloop task")
    assert leak.creator.function.endswith("main")


def test_ten_thousand_tasks_leave_nothing_behind(program):
    result = program("""
import asyncio, gc, json, leakguard
async def nothing():
    pass
async def main():
    leakguard.install()
    await asyncio.create_task(nothing())
    await asyncio.sleep(0)
    before = leakguard.stats()
    for _ in range(10_000):
        await asyncio.create_task(nothing())
    live = [asyncio.create_task(nothing()) for _ in range(10_000)]
    full = leakguard.stats()
    await asyncio.gather(*live)
    del live
    await asyncio.sleep(0)
    gc.collect()
    print(json.dumps([before, full, leakguard.stats()]))
asyncio.run(main())
""")
    before, full, after = json.loads(result.stdout)
    # The last task of the first loop is still held by the interpreter's stack.
    assert full["task"]["live"] - before["task"]["live"] in (10_000, 10_001)
    assert after["task"]["created"] - before["task"]["created"] == 20_000
    assert after["task"]["live"] == before["task"]["live"]
    assert after["task"]["created"] == after["task"]["ended"] + after["task"]["live"]
    # Two lines of `main` create tasks in these loops; the one before them is another line.
    assert after["stacks"] - before["stacks"] == 2
    assert full["bytes"] - before["bytes"] >= 10_000 * 40
    assert after["bytes"] - before["bytes"] < 100_000
    assert after["dropped"] == 0


def test_tracking_keeps_no_task_alive():
    async def main():
        leakguard.install()
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        count = sys.getrefcount(task)
        leakguard.snapshot()
        await end(task)
        return count

    async def untracked():
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        count = sys.getrefcount(task)
        await end(task)
        return count

    expected = asyncio.run(untracked())
    assert asyncio.run(main()) == expected


def test_a_task_that_was_there_before_is_known_and_never_a_leak():
    async def main():
        old = asyncio.create_task(sleeper(), name="old")
        await asyncio.sleep(0)
        with leakguard.guard(grace=0) as guarded:
            pass
        snapshot = leakguard.snapshot(kinds="task")
        await end(old)
        return guarded.report, {leak.name: leak for leak in snapshot}

    report, live = asyncio.run(main())
    assert not report
    assert len(live["old"].creation_stack) == 0
    assert live["old"].function == "sleeper"


def test_a_done_task_that_is_kept_is_not_live():
    async def nothing():
        pass

    async def main():
        async with leakguard.guard():
            kept = [asyncio.create_task(nothing()) for _ in range(5)]
            await asyncio.gather(*kept)
        return kept

    assert all(task.done() for task in asyncio.run(main()))


def test_a_resurrected_task_keeps_its_record():
    kept = []

    async def stuck():
        await asyncio.Future()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: kept.append(context["task"]))
        point = leakguard.checkpoint()
        task = loop.create_task(stuck())
        await asyncio.sleep(0)
        # Nothing but the task's own future holds it: a cycle, freed while pending.
        del task
        gc.collect()
        found = [leak.function for leak in tasks_since(point)]
        pending = list(kept)
        await end(*pending)
        return found, len(pending)

    found, resurrected = asyncio.run(main())
    assert resurrected == 1
    assert [name.rpartition(".")[2] for name in found] == ["stuck"]


def test_uninstall_puts_back_every_slot():
    def observe():
        return _core.hooks()

    class Copied(asyncio.Task):
        pass

    before = asyncio.tasks._PyTask.__dict__["__init__"]
    runner_close = asyncio.Runner.__dict__["close"]
    leakguard.install()
    assert observe()["tasks"] is True
    assert asyncio.tasks._PyTask.__dict__["__init__"] is not before

    class Later(asyncio.Task):
        pass

    leakguard.uninstall()
    assert not any(observe().values())
    assert asyncio.tasks._PyTask.__dict__["__init__"] is before
    assert asyncio.Runner.__dict__["close"] is runner_close

    async def main():
        loop = asyncio.get_running_loop()
        for kind in (asyncio.Task, Copied, Later, BeforeWith, asyncio.tasks._PyTask):
            await end(kind(sleeper(), loop=loop))

    asyncio.run(main())
    assert leakguard.stats()["task"] == {"created": 0, "ended": 0, "live": 0}


def test_asyncio_is_not_imported_for_the_program(program):
    result = program(
        "import sys, leakguard\n"
        "leakguard.install()\n"
        "leakguard.guard().__enter__()\n"
        "print([name for name in ('asyncio', '_asyncio', 'concurrent.futures') "
        "if name in sys.modules])\n"
        "import asyncio\n"
        "print(asyncio.tasks.__loader__ is asyncio.tasks.__spec__.loader,"
        " type(asyncio.tasks.__loader__).__name__)\n"
        "async def main():\n"
        "    task = asyncio.create_task(asyncio.sleep(0))\n"
        "    print(leakguard.stats()['task']['created'])\n"
        "    await task\n"
        "asyncio.run(main())\n"
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["[]", "True SourceFileLoader", "2"]


SUB_INTERPRETER = """
import sys
if "tracked" in sys.argv:
    import leakguard
import asyncio
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
if "tracked" in sys.argv:
    leakguard.install()
    before = leakguard.stats()
other = interpreters.create()
interpreters.run_string(other, '''
import asyncio
async def main():
    await asyncio.create_task(asyncio.sleep(0))
asyncio.run(main())
''')
interpreters.destroy(other)
if "tracked" in sys.argv:
    after = leakguard.stats()
    assert before["task"] == after["task"], after
    assert before["thread"] == after["thread"], after
print("ran")
"""


def test_a_sub_interpreter_is_passed_through(program):
    # 3.12.1 aborts at the end of such a program, with leakguard or without.
    plain = program(SUB_INTERPRETER)
    tracked = program(SUB_INTERPRETER, "tracked")
    assert plain.stdout == "ran\n"
    assert (tracked.stdout, tracked.stderr, tracked.returncode) == (
        plain.stdout,
        plain.stderr,
        plain.returncode,
    )


class Starter:
    def __init__(self):
        self.task = asyncio.create_task(asyncio.sleep(0))


def test_a_class_that_makes_a_task_is_called_from_the_line_that_calls_it():
    # Once a call of a class is specialised, the interpreter has a frame of its own below __init__.
    async def main():
        kept = [Starter() for _ in range(100)]
        found = {
            (frame.filename, frame.name)
            for leak in leakguard.snapshot(kinds="task")
            for frame in leak.creation_stack
        }
        for starter in kept:
            await starter.task
        return found

    leakguard.install()
    found = asyncio.run(main())
    assert (__file__, "Starter.__init__") in found
    assert ("__init__", "__init__") not in found
