"""Native threads: an extension starts them in each way, leaks them and ends them."""

import os
import re
import subprocess
import sysconfig

import pytest

from leakguard import _core

from .conftest import PROGRAMS, WRAPPER, clean_environment

pytestmark = pytest.mark.skipif(
    not _core.HAS_NATIVE_THREADS, reason="native threads need glibc on x86_64 or aarch64"
)
needs_libunwind = pytest.mark.skipif(
    _core.LIBUNWIND is None, reason="this build of leakguard has no libunwind"
)

TESTS = PROGRAMS.parent


def compiled(source, target, *options):
    environment = clean_environment()
    environment.pop("LD_PRELOAD", None)  # a sanitizer's, which is for Python
    subprocess.run(
        [
            *(os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-g", *options),
            *(str(source), "-o", str(target), "-lpthread"),
        ],
        env=environment,
        check=True,
    )
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the extension and a library that starts a thread in its constructor."""
    folder = tmp_path_factory.mktemp("extension")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    headers = [f"-I{sysconfig.get_path('include')}", f"-I{TESTS.parent / 'include'}"]
    compiled(TESTS / "extension/lg_native.c", folder / f"lg_native{suffix}", *headers)
    compiled(TESTS / "core/library.c", folder / "library.so")
    return folder


@pytest.fixture
def native(program, built):
    """Runs a program that can import the extension."""

    def run_native(text, *arguments, **variables):
        return program(text, *arguments, PYTHONPATH=str(built), **variables)

    return run_native


START = """
import leakguard, os, sys, threading, time

leakguard.install(kinds=("task", "thread", "native_thread"))
import lg_native

def tasks():
    return len(os.listdir("/proc/self/task"))

def known():
    return len(leakguard.snapshot(kinds=("thread", "native_thread")))

def leaks(**options):
    return point.leaks(kinds="native_thread", **options)

def settle():
    # A thread ends a moment after its join.
    while tasks() != known():
        time.sleep(0.001)

point = leakguard.checkpoint("start")
"""


def passed(result, stdout="ok\n"):
    assert (result.returncode, result.stdout) == (0, stdout), result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("how", ["worker", "leaver"])
@pytest.mark.parametrize("released", [False, True], ids=["with the GIL", "without"])
@pytest.mark.parametrize("detached", [False, True], ids=["joinable", "detached"])
def test_a_thread_of_c_is_seen_attributed_and_ends(native, how, released, detached):
    text = (
        START
        + f"""
def connect():
    lg_native.start({how!r}, {released}, {detached})

connect()
[leak] = leaks()
assert leak.kind == "native_thread", leak.kind
assert leak.function == "ext_{how} (" + os.path.basename(lg_native.__file__) + ")", leak.function
assert leak.name and leak.state == "running"
assert [(frame.name, frame.lineno) for frame in leak.creation_stack] == [
    ("<module>", 26), ("connect", 24)], leak.creation_stack
assert leak.site.name == "connect"
assert leak.creator.kind == "thread" and leak.creator.name == "MainThread", leak.creator
assert leak.facts["tid"] != os.getpid()
assert leak.facts["module"] == lg_native.__file__, leak.facts
assert leak.facts["start_routine"] == leak.function
assert tasks() == known() == 2
if leakguard._core.LIBUNWIND:
    assert "ext_start+0x" in str(leak.native_stack[-1]), leak.native_stack
    names = [str(frame) for frame in leak.current_native_stack]
    assert any(name.startswith("ext_worker+0x") for name in names), names
text = leak_text = leaks().text()
assert "1. native_thread ext_{how} (lg_native" in text, text
assert "created at app.py:24 in connect" in text, text
lg_native.finish({int(detached)})
assert not leaks(grace=30)
settle()
stats = leakguard.stats()["native_thread"]
assert stats == {{"created": 1, "ended": 1, "live": 0}}, stats
print("ok")
"""
    )
    passed(native(text))


@pytest.mark.parametrize("constructor", [True, False], ids=["constructor", "function"])
def test_a_thread_of_a_library_that_is_loaded_later(native, built, constructor):
    function = "" if constructor else "library_start"
    text = (
        START
        + f"""
def attach():
    lg_native.load({str(built / "library.so")!r}, {function!r})

attach()
[leak] = leaks()
assert leak.function == "library_worker (library.so)", leak.function
assert [frame.name for frame in leak.creation_stack] == ["<module>", "attach"]
if leakguard._core.LIBUNWIND:
    assert "library_start+0x" in str(leak.native_stack[-1]), leak.native_stack
assert "created at app.py:24 in attach" in leaks().text()
print("ok", flush=True)
os._exit(0)  # nobody ends that thread
"""
    )
    variables = {"LIBRARY_STARTS": "1"} if constructor else {}
    passed(native(text, **variables))


def test_threads_that_were_there_before_are_known_and_no_leaks(native):
    text = START.replace("import lg_native", "").replace(
        "import leakguard,", "import lg_native\nlg_native.start()\nimport leakguard,"
    )
    text += """
assert leaks() == [] or not leaks()
[found] = leakguard.snapshot(kinds="native_thread")
assert len(found.creation_stack) == 0
assert "creation not seen" in leakguard.snapshot(kinds="native_thread").text()
lg_native.finish()
settle()
assert tasks() == 1
print("ok")
"""
    passed(native(text))


def test_threads_that_the_c_library_starts_are_found(native):
    text = (
        START
        + """
import ctypes
libc = ctypes.CDLL(None)
gate = ctypes.create_string_buffer(64)
libc.sem_init(gate, 0, 0)
handle = ctypes.c_ulong()
assert libc.thrd_create(ctypes.byref(handle), libc.sem_wait, gate) == 0
[leak] = leaks()
assert leak.function == "unknown" and leak.native_stack is None
assert tasks() == known() == 2
libc.sem_post(gate)
libc.thrd_join(handle, None)
settle()
assert not leaks()
print("ok")
"""
    )
    passed(native(text))


def test_glibcs_timer_helper_is_hidden_by_a_rule(native):
    text = (
        START
        + """
import ctypes
libc = ctypes.CDLL(None)

class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int),
                ("function", ctypes.c_void_p), ("attribute", ctypes.c_void_p),
                ("padding", ctypes.c_char * 64)]

timer = ctypes.c_void_p()
event = Event(notify=2, function=ctypes.cast(libc.abs, ctypes.c_void_p))
assert libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) == 0
assert tasks() == 2
assert not leaks(grace=5), leaks().text()
print("ok")
"""
    )
    passed(native(text))


@needs_libunwind
def test_faulthandlers_watchdog_is_hidden_by_a_rule(native):
    text = (
        START
        + """
import faulthandler
faulthandler.dump_traceback_later(3600)
assert leakguard.stats()["native_thread"]["live"] == 1
assert not leaks(), leaks().text()
faulthandler.cancel_dump_traceback_later()
print("ok")
"""
    )
    passed(native(text))


def test_a_thread_that_cannot_be_started_leaves_nothing(native):
    text = (
        START
        + """
import ctypes
libc = ctypes.CDLL(None)
attribute = ctypes.create_string_buffer(128)
libc.pthread_attr_init(attribute)
assert libc.pthread_attr_setstacksize(attribute, ctypes.c_size_t(1 << 62)) == 0
handle = ctypes.c_ulong()
assert libc.pthread_create(ctypes.byref(handle), attribute, libc.abs, None) != 0
assert leakguard.stats()["native_thread"]["created"] == 0
print("ok")
"""
    )
    passed(native(text))


def test_many_threads_in_batches_and_a_fork_in_the_midst(native):
    # 10,000 in all; valgrind would need many minutes for them.
    count, size = (2, 20) if WRAPPER else (25, 200)
    text = (
        f"{START}\ncount, size = {count}, {size}\n"
        + """
lg_native.batches(count, size)
child = os.fork()
if child == 0:
    assert tasks() == known() == 1
    before = leakguard.stats()["native_thread"]["live"]
    lg_native.start()
    assert len(leaks()) == 1 and before == 0
    lg_native.finish()
    settle()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
before = leakguard.stats()["bytes"]
lg_native.batches(count, size)
settle()
stats = leakguard.stats()
assert stats["native_thread"] == {
    "created": 2 * count * size, "ended": 2 * count * size, "live": 0}, stats
assert stats["dropped"] == 0 and stats["bytes"] <= before + 65536, (before, stats)
print("ok")
"""
    )
    passed(native(text))


def test_a_fork_with_native_threads_alive(native):
    text = (
        START
        + """
lg_native.start()
child = os.fork()
if child == 0:
    assert not leaks() and tasks() == known() == 1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(leaks()) == 1
lg_native.finish()
print("ok")
"""
    )
    result = native(text)
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr


def test_pythons_threads_are_none_and_carry_their_native_stack(native):
    text = (
        START
        + """
import _thread
gate = threading.Event()
raw = _thread.start_new_thread(gate.wait, ())
thread = threading.Thread(target=gate.wait)
thread.start()
assert not leaks()
found = point.leaks(kinds="thread")
idents = [leakguard._core.thread_info(record.object)[3] for record in leakguard._core.live(0, 2)]
assert idents == [threading.main_thread().ident, raw, thread.ident], idents
assert found[1].facts["tid"] == thread.native_id
if leakguard._core.LIBUNWIND:
    for leak in found:
        assert any("pthread" in str(frame) or "thread" in str(frame).lower()
                   for frame in leak.native_stack), leak.native_stack
assert tasks() == known() == 3
gate.set()
thread.join()
while tasks() > 1:
    time.sleep(0.001)
settle()
print("ok")
"""
    )
    passed(native(text))


def test_python_code_that_runs_in_a_native_thread(native):
    text = (
        START
        + """
import asyncio
seen = []

def called():
    [leak] = leaks()
    seen.append(leak.function.partition(" ")[0])
    asyncio.run(asyncio.sleep(0))
    thread = threading.Thread(target=seen.append, args=(2,))
    thread.start()
    thread.join()

lg_native.call_in_thread(called)
settle()
assert seen[1:] == [2] and not leaks(), seen
print("ok")
"""
    )
    passed(native(text))


def test_what_a_native_thread_creates_names_it_as_its_creator(native):
    text = (
        START
        + """
gate = threading.Event()
lg_native.call_in_thread(lambda: lg_native.start())
[leak] = leaks(grace=1)
assert leak.creator.kind == "native_thread", leak.creator
lg_native.finish()
print("ok")
"""
    )
    passed(native(text))


def test_a_guard_reports_native_threads_it_was_asked_for(native):
    text = (
        START
        + """
for kinds, count in (("native_thread", 1), (("task", "thread"), 0)):
    with leakguard.guard(action=lambda report: print(len(report)), kinds=kinds, grace=0):
        lg_native.start()
lg_native.finish()
print("end")
"""
    )
    result = native(text)
    assert (result.returncode, result.stdout) == (0, "1\nend\n"), result.stderr


@pytest.mark.parametrize("released", [False, True], ids=["with the GIL", "without"])
def test_a_guard_for_descendants(native, released):
    text = (
        START
        + f"""
lg_native.start()
with leakguard.guard(action=print, kinds="native_thread", grace=0, scope="descendants") as guard:
    lg_native.start("worker", {released})
    other = threading.Thread(target=lambda: None)
assert guard.report and len(guard.report) == 1, guard.report
lg_native.finish()
"""
    )
    result = native(text)
    assert result.returncode == 0, result.stderr
    assert "1 leak" in result.stdout


STUCK = {
    "queue": ("import queue\nqueue.Queue().get()", r"(?i:lock|sem|cond|futex)", "Queue.get"),
    "sleep": ("time.sleep(3600)", r"nanosleep|select", "stuck"),
    "socket": (
        "import socket\nleft, right = socket.socketpair()\nleft.recv(1)",
        r"recv",
        "stuck",
    ),
    "lock of C": ("lg_native.wait_for_lock()", r"ext_take_lock", "stuck"),
}


@needs_libunwind
@pytest.mark.parametrize("wait", STUCK)
def test_where_a_thread_is_stuck_in_c_and_in_python(native, wait):
    code, in_c, function = STUCK[wait]
    body = "\n    ".join(code.splitlines())
    text = (
        START
        + f"""
lg_native.hold_lock(True)

def stuck():
    {body}

threading.Thread(target=stuck, daemon=True).start()
while True:
    report = point.leaks(kinds="thread")
    [leak] = report
    names = " ".join(str(frame) for frame in leak.current_native_stack or ()[-8:])
    import re
    if re.search({in_c!r}, names) and {function!r} in [
            frame.name for frame in leak.current_stack]:
        break
    time.sleep(0.01)
print(report.text(), flush=True)
os._exit(0)
"""
    )
    found = native(text)
    assert found.returncode == 0, found.stderr
    assert re.search(rf"in C: .*({in_c})", found.stdout), found.stdout
    assert "in stuck" in found.stdout


@needs_libunwind
def test_a_thread_in_a_c_call_that_holds_the_gil(native):
    """No Python runs meanwhile; the report comes when it lets go, and shows where it is then."""
    text = (
        START
        + """
def stuck():
    while True:
        lg_native.sleep_holding(0.02)

threading.Thread(target=stuck, daemon=True).start()
with leakguard.guard(grace=0.1):
    pass
report = point.leaks(kinds="thread")
print(report.text(), flush=True)
assert report[0].current_native_stack, report[0]
os._exit(0)
"""
    )
    found = native(text)
    assert found.returncode == 0, found.stderr
    assert "waiting at app.py:25 in stuck" in found.stdout


@needs_libunwind
def test_a_sample_changes_no_disposition_and_breaks_no_call(native):
    text = (
        START
        + """
import signal, socket
before = [signal.getsignal(number) for number in range(1, signal.NSIG) if number not in (32, 33)]
left, right = socket.socketpair()
got = []
thread = threading.Thread(target=lambda: got.append(left.recv(10)))
thread.start()
for _ in range(50):
    assert point.leaks(kinds="thread")[0].current_native_stack
right.send(b"hello")
thread.join()
assert got == [b"hello"]
mask = [line for line in open("/proc/self/status") if line.startswith("SigCgt")]
assert before == [signal.getsignal(n) for n in range(1, signal.NSIG) if n not in (32, 33)]
print("ok")
"""
    )
    passed(native(text))


@needs_libunwind
def test_a_thread_that_blocks_the_signal_is_in_the_kernel(native):
    text = (
        START
        + """
import signal

def stuck():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(3600)

threading.Thread(target=stuck, daemon=True).start()
while True:
    report = point.leaks(kinds="thread")
    facts = report[0].facts
    if facts.get("unanswered") == "blocked" and "syscall" in facts:
        break
print(report.text(), flush=True)
os._exit(0)
"""
    )
    found = native(text)
    assert found.returncode == 0, found.stderr
    assert re.search(r"\n     waiting in the kernel: .*system call \d+\n?", found.stdout)


def test_the_environment_mode_says_where_without_asking(native):
    text = """
import lg_native, os
lg_native.start()
[tid] = [tid for tid in os.listdir("/proc/self/task") if tid != str(os.getpid())]
while open(f"/proc/self/task/{tid}/syscall").read().startswith("running"):
    pass
"""
    found = native(text, LEAKGUARD="exit", LEAKGUARD_KINDS="thread,native_thread")
    assert found.returncode == 0, found.stderr
    assert "1 live resource at exit (1 native_thread)" in found.stderr
    assert "created at app.py:3 in <module>" in found.stderr
    assert "in C: ext_start" in found.stderr or _core.LIBUNWIND is None
    assert "waiting in the kernel: " in found.stderr
    assert "waiting in C" not in found.stderr


def test_dump_native(start, run, built, tmp_path):
    text = "import lg_native, time\nlg_native.start()\nprint('ready', flush=True)\ntime.sleep(3600)"
    process = start(
        text,
        LEAKGUARD="1",
        LEAKGUARD_KINDS="thread,native_thread",
        LEAKGUARD_SIGNAL="SIGUSR2",
        XDG_RUNTIME_DIR=str(tmp_path),
        PYTHONPATH=str(built),
    )
    plain = run("-m", "leakguard", "dump", process.pid, XDG_RUNTIME_DIR=str(tmp_path))
    assert plain.returncode == 0, plain.stderr
    assert "native_thread ext_worker" in plain.stdout
    assert "waiting in C" not in plain.stdout
    found = run("-m", "leakguard", "dump", "--native", process.pid, XDG_RUNTIME_DIR=str(tmp_path))
    assert found.returncode == 0, found.stderr
    if _core.LIBUNWIND is not None:
        assert re.search("waiting in C: .*ext_worker", found.stdout), found.stdout


def test_uninstall_puts_pthread_create_back(native):
    text = (
        START
        + """
import ctypes
ours = ctypes.cast(ctypes.CDLL(None).pthread_create, ctypes.c_void_p).value
lg_native.start()
leakguard.uninstall()
theirs = ctypes.cast(ctypes.CDLL(None).pthread_create, ctypes.c_void_p).value
modules = [leakguard._core.native_symbol(address)[2] for address in (ours, theirs)]
assert "leakguard" in modules[0] and "leakguard" not in modules[1], modules
lg_native.start()  # as if nothing had been
lg_native.finish()
leakguard.install(kinds="native_thread")
assert leakguard.stats()["native_thread"]["live"] == 0
for _ in range(5):
    lg_native.start()
    leakguard.uninstall()
    leakguard.install(kinds="native_thread")
lg_native.finish()
print("ok")
"""
    )
    passed(native(text))


def test_another_interposer_is_chained_to(native, tmp_path, built):
    source = tmp_path / "other.c"
    source.write_text("""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
int other_calls;
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*s)(void *), void *p)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(
            RTLD_NEXT, "pthread_create");
    other_calls++;
    return next(t, a, s, p);
}
""")
    other = compiled(source, tmp_path / "other.so", "-ldl")
    text = (
        START
        + """
import ctypes
other = ctypes.c_int.in_dll(ctypes.CDLL(None), "other_calls")
before = other.value
lg_native.start()
thread = threading.Thread(target=int)
thread.start()
thread.join()
assert other.value == before + 2, (before, other.value)
assert len(leaks()) == 1
lg_native.finish()
leakguard.uninstall()
lg_native.start()
assert other.value == before + 3
lg_native.finish()
print("ok")
"""
    )
    preload = ":".join(filter(None, [os.environ.get("LD_PRELOAD"), str(other)]))
    passed(native(text, LD_PRELOAD=preload))


def test_resources_of_another_extension(native):
    text = (
        START
        + """
def connect():
    return lg_native.connect("db:5432", True)

idle = lg_native.connect("cache", False)
handle = connect()
found = point.leaks(kinds="connection")
assert [(leak.kind, leak.name, leak.state) for leak in found] == [
    ("connection", "cache", None), ("connection", "db:5432", "busy")], list(found)
assert "1. connection " in found.text() and "in connect" in found.text(), found.text()
assert leakguard.stats()["connection"] == {"created": 2, "ended": 0, "live": 2}
lg_native.disconnect(handle)
lg_native.disconnect(idle)
assert not point.leaks(kinds="connection")
assert lg_native.add_kind("connection") == lg_native.add_kind("connection")
for wrong in ("task", "Bad", "", "two words"):
    try:
        lg_native.add_kind(wrong)
    except ValueError:
        continue
    raise AssertionError(wrong)
for number in range(4):
    lg_native.add_kind(f"kind{number}")
try:
    lg_native.add_kind("one_more")
except ValueError as error:
    assert "5 kinds" in str(error), error
else:
    raise AssertionError
try:
    leakguard.guard(kinds="connections")
except ValueError as error:
    assert "'connection'" in str(error), error
leakguard.uninstall()
lg_native.disconnect(lg_native.connect("untracked", False))
print("ok")
"""
    )
    passed(native(text))


def test_a_test_that_leaves_a_native_thread_behind(suite, built, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(built))
    found = suite(
        test_it="""
            import lg_native, pytest

            pytestmark = pytest.mark.leakguard(kinds=("thread", "native_thread"), grace=0)

            def test_leaks():
                lg_native.start()

            def test_leaks_without_the_gil():
                lg_native.start("worker", True)

            def test_is_clean():
                pass

            def test_ends_all():
                lg_native.finish()

            def test_starts_and_ends():
                lg_native.start()
                lg_native.finish()
        """,
    )
    assert found.leaking == ["test_leaks", "test_leaks_without_the_gil"], found.text
    assert found.clean == ["test_ends_all", "test_is_clean", "test_starts_and_ends"]
    assert "native_thread ext_worker (lg_native" in found.text


def test_native_threads_alive_at_once_are_counted_exactly(native):
    text = (
        START
        + """
def burst(count):
    for _ in range(count):
        lg_native.start()
    lg_native.finish()
    settle()

with leakguard.guard(max_live={"native_thread": 3}, kinds="native_thread"):
    burst(3)
    burst(2)
with leakguard.guard(max_live={"native_thread": 3}, action=lambda report: print(report.fanout)):
    burst(4)
print("ok")
"""
    )
    result = native(text)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "(<Fanout native_thread: 4 alive at once, 3 allowed>,)\nok\n"
