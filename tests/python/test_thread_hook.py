"""Every Python thread is recorded once, with what it runs and the line that started it."""

import _thread
import functools
import gc
import inspect
import sys
import threading

import pytest

import leakguard
from leakguard import _core

from .conftest import line_of


class Worker(threading.Thread):
    def __init__(self, event):
        super().__init__()
        self.event = event

    def run(self):
        self.event.wait()


class Plain(threading.Thread):
    """A subclass that leaves run alone."""


class Callable:
    def __init__(self, event):
        self.event = event

    def __call__(self):
        self.event.wait()


def wait_for(event):
    event.wait()


def by_target(event):
    return threading.Thread(target=wait_for, args=(event,))


def by_bound_method(event):
    return threading.Thread(target=event.wait)


def by_partial(event):
    return threading.Thread(target=functools.partial(wait_for, event))


def by_callable_object(event):
    return threading.Thread(target=Callable(event))


def by_builtin_type(event):
    return threading.Thread(target=list, args=(iter(event.wait, True),))


def by_overridden_run(event):
    return Worker(event)


def by_subclass_with_target(event):
    return Plain(target=wait_for, args=(event,))


def by_timer(event):
    return threading.Timer(3600, event.set)


def by_daemon(event):
    return threading.Thread(target=wait_for, args=(event,), daemon=True)


@pytest.mark.parametrize(
    ("way", "function"),
    [
        (by_target, "wait_for"),
        (by_bound_method, "Event.wait"),
        (by_partial, "wait_for"),
        (by_callable_object, "Callable"),
        (by_builtin_type, "list"),
        (by_overridden_run, "Worker.run"),
        (by_subclass_with_target, "wait_for"),
        (by_timer, "Timer.run"),
        (by_daemon, "wait_for"),
    ],
)
def test_each_thread_is_seen_once_with_its_function(way, function, release):
    point = leakguard.checkpoint()
    thread = way(release)
    thread.start()  # starts it
    (leak,) = point.leaks()
    if isinstance(thread, threading.Timer):
        thread.cancel()
    assert (leak.kind, leak.function, leak.name) == ("thread", function, thread.name)
    assert (leak.site.filename, leak.site.lineno) == (__file__, line_of("starts it"))
    assert leak.state == "running"


def test_a_raw_thread_is_seen_from_start_to_end(release):
    point = leakguard.checkpoint()
    ended = threading.Event()

    def raw(event, *, done):
        event.wait()
        done.set()

    ident = _thread.start_new_thread(raw, (release,), {"done": ended})  # raw start
    (leak,) = point.leaks()
    assert leak.function.endswith("raw")
    assert leak.name == f"raw-thread-{ident}"
    assert leak.site.lineno == line_of("raw start")
    release.set()
    ended.wait()
    point.assert_clean()


def test_idents_are_reused_and_records_are_not(release):
    leakguard.install()
    before = leakguard.stats()["thread"]["created"]
    idents = set()
    for _ in range(50):
        thread = threading.Thread(target=int)
        thread.start()
        idents.add(thread.ident)
        thread.join()
    assert leakguard.stats()["thread"]["created"] - before == 50
    assert len(idents) < 50, "this system did not reuse an ident: the test proves nothing"


def test_a_start_that_fails_leaves_no_record(monkeypatch):
    leakguard.install()
    before = leakguard.stats()["thread"]
    for arguments in ((), (3, ()), (int, 5), (int, (), {}, 9)):
        with pytest.raises(TypeError) as tracked:
            _thread.start_new_thread(*arguments)
        leakguard.uninstall()
        with pytest.raises(TypeError) as plain:
            _thread.start_new_thread(*arguments)
        leakguard.install()
        assert str(tracked.value) == str(plain.value)
    after = leakguard.stats()["thread"]
    assert after["live"] == before["live"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 announces no thread start")
def test_an_audit_hook_that_forbids_a_thread_leaves_no_record(program):
    result = program(
        "import leakguard, sys, threading\n"
        "seen = []\n"
        "def hook(event, args):\n"
        "    if event.startswith('_thread.start'):\n"
        "        seen.append(args[0].__self__)\n"
        "        raise PermissionError('no threads')\n"
        "leakguard.install()\n"
        "sys.addaudithook(hook)\n"
        "before = leakguard.stats()['thread']\n"
        "thread = threading.Thread(target=print)\n"
        "try:\n    thread.start()\n"
        "except PermissionError as error:\n    print(error)\n"
        "print(seen == [thread], leakguard.stats()['thread'] == before)\n"
    )
    assert result.stdout.splitlines() == ["no threads", "True True"], result.stderr


RAISING_RAW_THREAD = """
import _thread, sys, threading
if "tracked" in sys.argv:
    import leakguard
    leakguard.install()
ended = threading.Event()
def hook(unraisable):
    shown = unraisable.err_msg if unraisable.object is None else repr(unraisable.object)
    print(unraisable.exc_value, "<function fail at" in shown)
    ended.set()
sys.unraisablehook = hook
def fail():
    raise ValueError("mine")
_thread.start_new_thread(fail, ())
ended.wait()
"""


def test_an_exception_in_a_raw_thread_is_told_as_without_leakguard(program):
    plain = program(RAISING_RAW_THREAD)
    tracked = program(RAISING_RAW_THREAD, "tracked")
    assert plain.stdout == "mine True\n"
    assert tracked.stdout == plain.stdout


def test_a_thread_that_is_started_by_a_thread_knows_its_creator(release):
    point = leakguard.checkpoint()
    ready = threading.Event()

    def parent():
        threading.Thread(target=wait_for, args=(release,), name="child").start()
        ready.set()

    thread = threading.Thread(target=parent, name="parent")
    thread.start()
    ready.wait()
    thread.join()
    while len(report := point.leaks()) != 1:  # the parent's record ends just after its function
        pass
    (leak,) = report
    assert (leak.name, leak.creator.name, leak.creator.ended) == ("child", "parent", "returned")
    assert leak.creator.function.endswith("parent")


def test_a_builtin_type_that_has_ended_is_named_as_a_creator(release):
    point = leakguard.checkpoint()

    def start_one():
        threading.Thread(target=wait_for, args=(release,), name="child").start()
        return True

    thread = threading.Thread(target=list, args=(iter(start_one, True),))
    thread.start()
    thread.join()
    while len(report := point.leaks()) != 1:  # the creator's record ends just after its function
        pass
    assert report[0].creator.function == "list"


def test_nothing_of_a_start_is_kept_and_no_start_sees_the_arguments_of_another():
    leakguard.install()

    class Argument:
        pass

    seen, ended = [], threading.Semaphore(0)

    def run(*args, **kwargs):
        seen.append((len(args), sorted(kwargs)))
        if args[0] > 0:  # starts of other forms, inside and after this one
            start(args[0] - 1)
        ended.release()

    def start(depth):
        positional = (depth, *[Argument()] * depth)
        if depth % 2:
            _thread.start_new_thread(run, positional, {"word": Argument()})
        else:
            threading.Thread(target=run, args=positional, daemon=True).start()

    start(6)
    for _ in range(7):
        ended.acquire()
    assert seen == [(1 + n, ["word"] if n % 2 else []) for n in (6, 5, 4, 3, 2, 1, 0)]
    while any(isinstance(found, Argument) for found in gc.get_objects()):  # the last one ends
        pass
    assert all(list(found) is not None for found in gc.get_objects() if type(found) is tuple)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="joinable threads are new in 3.13")
def test_a_function_that_is_given_by_name_is_seen(release):
    point = leakguard.checkpoint()
    handle = _thread.start_joinable_thread(function=release.wait, daemon=True)
    (leak,) = point.leaks()
    assert leak.function == "Event.wait"
    release.set()
    handle.join()
    point.assert_clean()


def test_a_main_thread_is_the_creator_of_what_it_starts(release):
    point = leakguard.checkpoint()
    threading.Thread(target=wait_for, args=(release,)).start()
    (leak,) = point.leaks()
    assert (leak.creator.kind, leak.creator.name, leak.creator.ended) == (
        "thread",
        "MainThread",
        None,
    )


def test_a_thread_that_python_knows_by_its_ident_alone_is_one_of_those_before(program):
    result = program(
        "import _thread, leakguard, threading\n"
        "go, known, ended = threading.Event(), threading.Event(), threading.Event()\n"
        "def raw():\n"
        "    threading.current_thread()\n"
        "    known.set()\n"
        "    go.wait()\n"
        "    ended.set()\n"
        "_thread.start_new_thread(raw, ())\n"
        "known.wait()\n"
        "point = leakguard.checkpoint()\n"
        "print([it.name for it in leakguard.snapshot(kinds='thread')])\n"
        "go.set()\n"
        "ended.wait()\n"
        "point.assert_clean()\n"
    )
    assert result.stdout == "['MainThread', 'Dummy-1']\n", result.stderr
    assert result.stderr == ""


def test_a_thread_that_was_there_before_is_known_as_a_creator(release):
    go, ready = threading.Event(), threading.Event()

    def old():
        go.wait()
        threading.Thread(target=wait_for, args=(release,), name="child").start()
        ready.set()
        release.wait()

    threading.Thread(target=old, name="old").start()
    point = leakguard.checkpoint()
    go.set()
    ready.wait()
    (leak,) = point.leaks()
    assert (leak.name, leak.creator.name) == ("child", "old")


def test_uninstall_puts_the_method_table_back(release):
    leakguard.install()
    hooked = _core.hooks()["threads"]
    assert "start_new_thread" in hooked
    assert ("start_joinable_thread" in hooked) == (sys.version_info >= (3, 13))
    start = _thread.start_new_thread  # a name bound while hooked
    leakguard.uninstall()
    assert _core.hooks()["threads"] == []
    ended = threading.Event()
    start(ended.set, ())
    ended.wait()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert leakguard.stats()["thread"]["created"] == 0


def test_a_thread_that_runs_across_uninstall_ends_quietly(release):
    leakguard.install()
    thread = threading.Thread(target=wait_for, args=(release,))
    thread.start()
    leakguard.uninstall()
    leakguard.install()
    names = [leak.name for leak in leakguard.snapshot(kinds="thread")]
    release.set()
    thread.join()
    assert thread.name in names
    assert thread.name not in [leak.name for leak in leakguard.snapshot(kinds="thread")]


def test_signatures_of_replaced_methods_stay_readable():
    from concurrent.futures import ThreadPoolExecutor

    plain = inspect.signature(ThreadPoolExecutor)
    documentation = ThreadPoolExecutor.__init__.__doc__
    leakguard.install()
    assert inspect.signature(ThreadPoolExecutor) == plain
    assert ThreadPoolExecutor.__init__.__doc__ == documentation
    assert ThreadPoolExecutor.__init__.__qualname__ == "ThreadPoolExecutor.__init__"
