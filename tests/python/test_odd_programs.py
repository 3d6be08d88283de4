"""Programs that are unusual and correct: each was harmed, blamed or missed once."""

import asyncio
import concurrent.futures
import copy
import gc
import pickle
import sys
import threading
import weakref
from unittest import mock

import pytest

import leakguard
from leakguard import LeakError, _core


async def sleeper():
    await asyncio.sleep(3600)


async def end(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_a_mock_as_target_and_as_a_pools_call(release):
    call = mock.Mock(side_effect=release.wait)
    children = set(vars(call)["_mock_children"])
    with pytest.raises(LeakError) as caught:
        with leakguard.guard(grace=0):
            threading.Thread(target=call).start()
            pool = concurrent.futures.ThreadPoolExecutor(1)
            pool.submit(call)
    assert [leak.function for leak in caught.value.report] == ["Mock", "Mock"]
    # It was asked for nothing that it would have answered.
    assert set(vars(call)["_mock_children"]) == children
    release.set()
    pool.shutdown()


def test_an_executor_that_cannot_be_hashed_or_equals_all_others():
    class Equal(concurrent.futures.ThreadPoolExecutor):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    class Unhashable(concurrent.futures.ThreadPoolExecutor):
        __hash__ = None

        def __eq__(self, other):
            return self is other

    leakguard.install()
    before = leakguard.stats()["executor"]["live"]
    pools = [Equal(1), Equal(1), Unhashable(1)]
    assert leakguard.stats()["executor"]["live"] == before + 3
    del pools
    gc.collect()
    assert leakguard.stats()["executor"]["live"] == before
    pool = None
    with pytest.raises(LeakError, match="never shut down"):
        with leakguard.guard(grace=0):
            pool = Unhashable(1)
            pool.submit(int).result()
    pool.shutdown()


def test_an_executor_whose_creation_fails_leaves_no_record():
    leakguard.install()
    before = leakguard.stats()["executor"]
    with pytest.raises(ValueError, match="max_workers"):
        concurrent.futures.ThreadPoolExecutor(0)
    assert leakguard.stats()["executor"] == before


def test_a_pure_python_task_whose_creation_fails_is_no_leak():
    kept = []

    async def main():
        async with leakguard.guard(grace=0):
            try:
                asyncio.tasks._PyTask(42)
            except TypeError as error:
                kept.append(error)  # its traceback holds the task

    asyncio.run(main())
    assert len(kept) == 1


class Hostile(asyncio.Task):
    """Raises while `raising`: asyncio.run itself would fail on it at its end."""

    raising = True

    def get_name(self):
        return 1 / 0 if self.raising else super().get_name()

    def get_loop(self):
        return 1 / 0 if self.raising else super().get_loop()

    def done(self):
        return 1 / 0 if self.raising else super().done()


def test_a_task_class_that_raises_is_reported_and_hides_no_other():
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(LeakError) as caught:
            async with leakguard.guard(grace=0):
                hostile = Hostile(sleeper(), loop=loop)
                plain = asyncio.create_task(sleeper())
                await asyncio.sleep(0)
        hostile.raising = False
        await end(hostile, plain)
        return caught.value.report

    report = asyncio.run(main())
    assert len(report) == 2
    assert "sleeper" in [leak.function for leak in report]
    assert report.text().startswith("leakguard: 2 leaks")


def test_a_task_class_that_keeps_what_is_read_from_it(program):
    # Freeing such a task aborted the process once.
    result = program("""
import asyncio, gc, leakguard
log = []
class Traced(asyncio.Task):
    def __getattribute__(self, name):
        log.append((self, name))
        return super().__getattribute__(name)
async def child():
    await asyncio.sleep(3600)
async def parent():
    return asyncio.create_task(child(), name="child")
async def main():
    leakguard.install()
    kid = await Traced(parent(), loop=asyncio.get_running_loop())
    await asyncio.sleep(0)
    log.clear()
    gc.collect()
    (leak,) = [leak for leak in leakguard.snapshot(kinds="task") if leak.name == "child"]
    print(leak.creator.function, leak.creator.ended)
    kid.cancel()
asyncio.run(main())
""")
    assert (result.stdout, result.returncode) == ("parent returned\n", 0), result.stderr


def test_a_creator_that_the_collector_freed_stays_known():
    async def parent():
        me = asyncio.current_task()
        asyncio.create_task(sleeper(), name="child")
        me.cycle = me
        raise ValueError("kept in a traceback")

    async def main():
        point = leakguard.checkpoint()
        task = asyncio.create_task(parent(), name="parent")
        with pytest.raises(ValueError, match="kept"):
            await task
        del task
        gc.collect()
        (leak,) = point.leaks(kinds="task")
        await end(*[task for task in asyncio.all_tasks() if task.get_name() == "child"])
        return leak.creator

    creator = asyncio.run(main())
    assert (creator.name, creator.ended) == ("parent", "raised")
    assert creator.function.endswith("parent")


def test_another_library_that_chained_to_our_hook(program):
    result = program("""
import asyncio, leakguard
tasks = asyncio.tasks
original = tasks._PyTask.__init__
leakguard.install()
hooked = tasks._PyTask.__init__
def wrapper(self, *args, **kwargs):
    return hooked(self, *args, **kwargs)
tasks._PyTask.__init__ = wrapper
for _ in range(3):
    leakguard.uninstall()
    assert tasks._PyTask.__init__ is wrapper
    leakguard.install()
async def nothing():
    pass
async def main():
    await tasks._PyTask(nothing(), loop=asyncio.get_running_loop())
    await asyncio.create_task(nothing())
asyncio.run(main())
print("ran")
""")
    assert (result.stdout, result.returncode) == ("ran\n", 0), result.stderr


def test_threads_start_function_replaced_by_the_program(program):
    result = program("""
import _thread, threading
start = _thread.start_new_thread
_thread.start_new_thread = lambda *args: start(*args)
import leakguard
point = leakguard.checkpoint()
event = threading.Event()
_thread.start_new_thread(event.wait, ())
print(len(point.leaks()))
event.set()
""")
    assert (result.stdout, result.returncode) == ("1\n", 0), result.stderr


@pytest.mark.parametrize("answer", ["True", "False", "1 / 0"])
def test_the_exit_waits_as_ever_for_a_thread_that_overrides_is_alive(answer, program):
    result = program(
        "import threading, time\n"
        "class Odd(threading.Thread):\n"
        "    daemon_answer = property(lambda self: 1 / 0)\n"
        f"    def is_alive(self):\n        return {answer}\n"
        "    def run(self):\n        time.sleep(0.5)\n        print('ran')\n"
        "Odd().start()\n",
        LEAKGUARD="exit",
        LEAKGUARD_GRACE="0.05",
    )
    assert (result.stdout, result.returncode) == ("ran\n", 23)
    assert "1. thread Odd.run, 1 alive" in result.stderr


def test_the_exit_waits_as_ever_where_thread_is_another_class(program):
    result = program(
        "import threading, time\n"
        "class Other(threading.Thread):\n    pass\n"
        "threading.Thread = Other\n"
        "def slow():\n    time.sleep(0.3)\n    print('ran')\n"
        "Other(target=slow).start()\n",
        LEAKGUARD="1",
        LEAKGUARD_GRACE="0.05",
    )
    assert (result.stdout, result.returncode) == ("ran\n", 0)
    assert "1 leak at shutdown" in result.stderr


def test_a_very_long_grace_is_waited_in_pieces(program):
    result = program(
        "import threading, time\n"
        "def slow():\n    time.sleep(0.2)\n    print('ran')\n"
        "threading.Thread(target=slow).start()\n",
        LEAKGUARD="1",
        LEAKGUARD_GRACE="1e10",
    )
    assert (result.stdout, result.stderr, result.returncode) == ("ran\n", "", 0)


def test_a_checkpoint_of_the_program_is_not_disturbed_by_the_environment_mode(program):
    result = program(
        "import asyncio, leakguard\n"
        "async def reader():\n    await asyncio.sleep(3600)\n"
        "async def main():\n    asyncio.create_task(reader())\n    await asyncio.sleep(0)\n"
        "point = leakguard.checkpoint()\n"
        "asyncio.run(main())\n"
        "try:\n    point.assert_clean()\n"
        "except leakguard.LeakError as error:\n    print(len(error.report))\n",
        LEAKGUARD="1",
    )
    assert (result.stdout, result.returncode) == ("1\n", 0)


def test_an_action_that_fails_does_not_hide_the_bodys_exception(release):
    def fail(report):
        raise ZeroDivisionError

    with pytest.raises(ValueError, match="mine") as caught:
        with leakguard.guard(action=fail, grace=0):
            threading.Thread(target=release.wait).start()
            raise ValueError("mine")
    assert any("action failed" in note for note in caught.value.__notes__)
    with pytest.raises(ZeroDivisionError):
        with leakguard.guard(action=fail, grace=0):
            threading.Thread(target=release.wait).start()


def test_a_look_keeps_no_frame_and_no_local_alive(release):
    class Local:
        pass

    def look():
        local = Local()
        threading.Thread(target=release.wait).start()
        with pytest.raises(LeakError):
            with leakguard.guard(grace=0):
                threading.Thread(target=release.wait).start()
        leakguard.snapshot()
        return weakref.ref(local)

    leakguard.install()
    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()


def test_guards_in_many_threads_at_once(release):
    errors = []

    def work():
        try:
            for _ in range(200):
                with leakguard.guard(scope="descendants", grace=0, action="cancel"):
                    leakguard.checkpoint()
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []


def test_many_threads_install_at_once_and_one_installation_results():
    close = asyncio.Runner.__dict__["close"]
    ready = threading.Barrier(8)

    def work():
        ready.wait()
        leakguard.install()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    names = [leak.name for leak in leakguard.snapshot(kinds="thread")]
    assert names.count("MainThread") == 1
    assert asyncio.Runner.__dict__["close"].__wrapped__ is close


def test_replaced_methods_can_be_copied_pickled_and_referenced():
    leakguard.install()
    close = asyncio.Runner.__dict__["close"]
    assert type(close) is _core.Hook
    assert copy.deepcopy(close) is close
    assert pickle.loads(pickle.dumps(asyncio.Runner.close)) is close
    with asyncio.Runner() as runner:
        assert weakref.WeakMethod(runner.close)() is not None


def test_finders_that_ask_each_other(program):
    result = program("""
import sys
class Asking:
    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
sys.meta_path.insert(0, Asking())
import leakguard
leakguard.install()
import asyncio
async def main():
    async with leakguard.guard(grace=0) as guarded:
        pass
asyncio.run(main())
print(leakguard._core.hooks()["tasks"])
""")
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr


def test_asyncio_imported_past_our_finder_is_caught_up_with(program):
    result = program("""
import sys, importlib.machinery
import leakguard
leakguard.install()
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "_Finder"]
import asyncio
async def sleeper():
    await asyncio.sleep(3600)
async def main():
    asyncio.create_task(sleeper())
    await asyncio.sleep(0)
try:
    with leakguard.guard():
        asyncio.run(main())
except leakguard.LeakError as error:
    print(len(error.report))
""")
    assert (result.stdout, result.returncode) == ("1\n", 0), result.stderr


def test_uninstall_in_a_sub_interpreter_leaves_the_main_one_alone(program):
    result = program("""
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import leakguard
leakguard.install()
other = interpreters.create()
interpreters.run_string(other, '''
from leakguard import _core
_core.uninstall()
assert not _core.is_installed()
try:
    _core.install(64, 1 << 20)
except RuntimeError as error:
    assert "main interpreter" in str(error)
else:
    raise AssertionError
''')
interpreters.destroy(other)
print(leakguard.is_installed(), leakguard._core.hooks()["threads"] != [])
""")
    assert (result.stdout, result.returncode) == ("True True\n", 0), result.stderr


def test_code_that_is_made_in_a_loop_is_not_kept():
    async def nothing():
        pass

    async def main():
        leakguard.install()
        references = []
        for number in range(3000):
            space = {"asyncio": asyncio, "nothing": nothing}
            exec(f"def make():\n    x = {number}\n    return asyncio.create_task(nothing())", space)
            await space["make"]()
            references.append(weakref.ref(space["make"].__code__))
        space.clear()
        gc.collect()
        return sum(reference() is not None for reference in references)

    assert asyncio.run(main()) < 1500
    assert leakguard.stats()["dropped"] == 0


def test_the_site_of_a_main_task_is_the_line_that_runs_it():
    async def main():
        return leakguard.snapshot(kinds="task")

    leakguard.install()
    (leak,) = [leak for leak in asyncio.run(main()) if leak.function.endswith("main")]
    assert leak.site.filename == __file__
    assert "asyncio.run(main())" in leak.site.line


def test_a_pool_given_to_a_loop_of_another_thread(release):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    leakguard.install()
    given = threading.Event()
    with leakguard.guard(grace=0.05):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        loop.call_soon_threadsafe(lambda: (loop.set_default_executor(pool), given.set()))
        given.wait()
        pool.submit(int).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    pool.shutdown()
