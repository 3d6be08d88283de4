"""Child processes: each way to start one is seen, and none is touched."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import leakguard
from leakguard import _core

from .conftest import Since, line_of, place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

HERE = str(Path(__file__))
SLEEP = [sys.executable, "-c", "input()"]


def until(condition):
    """Waits for what a process of our own is about to do."""
    while not condition():
        time.sleep(0.001)


def is_zombie(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


@pytest.fixture
def point():
    return Since("process", "task", "thread")


@pytest.fixture
def child():
    """A process that runs until its stdin is closed; ended here."""
    made = []

    def start(**options):
        made.append(subprocess.Popen(SLEEP, stdin=subprocess.PIPE, **options))  # the child
        return made[-1]

    yield start
    for process in made:
        process.stdin.close()
        process.wait()


# Each way to start one.


def test_a_popen_that_nobody_waits_for(point, child):
    process = child()
    leak = point.only()
    assert place(leak) == (HERE, line_of("the child"))
    assert (leak.kind, leak.function, leak.state) == ("process", "Popen", "running")
    assert leak.name == Path(sys.executable).name
    assert leak.facts == {"pid": process.pid, "args": [sys.executable, "-c", "input()"]}
    assert leak.why == "it still runs, and nobody has waited for it"


@pytest.mark.parametrize("options", [{}, {"close_fds": False}, {"preexec_fn": int}])
def test_a_popen_that_was_waited_for_is_none(point, options):
    subprocess.run(["true"], check=True, **options)
    assert point.leaks() == []
    assert leakguard.stats()["process"] == {"created": 1, "ended": 1, "live": 0}


def test_communicate_waits(point):
    process = subprocess.Popen(["echo", "x"], stdout=subprocess.PIPE)
    assert process.communicate()[0] == b"x\n"
    assert point.leaks() == []


def test_a_popen_that_posix_spawn_starts(point, child):
    child(close_fds=False)
    assert place(point.only()) == (HERE, line_of("the child"))


def test_a_class_of_the_programs_own(point):
    class Own(subprocess.Popen):
        pass

    process = Own(["true"])
    assert point.only().function.endswith("Own")
    process.wait()


def test_os_fork(point):
    pid = os.fork()  # forks
    if pid == 0:
        os._exit(3)
    until(lambda: is_zombie(pid))
    leak = point.only()
    assert place(leak) == (HERE, line_of("forks"))
    assert (leak.name, leak.function, leak.state) == (f"fork-{pid}", "fork", "zombie")
    assert leak.facts == {"pid": pid, "status": 3}
    assert leak.why == "it ended with status 3, and nobody has waited for it"
    assert leak.cause == "zombie"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert point.leaks() == []


def test_os_forkpty(point):
    pid, terminal = os.forkpty()  # forks with a terminal
    if pid == 0:
        os._exit(0)
    leak = point.only()
    assert place(leak) == (HERE, line_of("forks with a terminal"))
    assert leak.function == "forkpty"
    os.close(terminal)
    os.waitpid(pid, 0)
    assert point.leaks() == []


@pytest.mark.parametrize("spawn", ["posix_spawn", "posix_spawnp"])
def test_os_posix_spawn(point, spawn):
    pid = getattr(os, spawn)("/bin/sh", ["sh", "-c", "exit 5"], {})  # spawns
    leak = point.only()
    assert place(leak) == (HERE, line_of("spawns"))
    assert (leak.name, leak.function) == ("sh", spawn)
    assert leak.facts["args"] == ["sh", "-c", "exit 5"]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert point.leaks() == []


def test_os_spawn_that_waits_and_one_that_does_not(point):
    assert os.spawnl(os.P_WAIT, "/bin/true", "true") == 0
    pid = os.spawnl(os.P_NOWAIT, "/bin/true", "true")  # spawned
    assert place(point.only()) == (HERE, line_of("spawned"))
    os.waitpid(pid, 0)
    assert leakguard.stats()["process"]["created"] == 2


def test_names_bound_earlier_are_seen(point):
    from os import fork  # the builtin's own object, as a program's `from os import fork` has it

    pid = fork()
    if pid == 0:
        os._exit(0)
    assert point.only().facts["pid"] == pid
    os.waitpid(pid, 0)


def test_a_popen_in_a_thread(point, child):
    thread = threading.Thread(target=child)
    thread.start()
    thread.join()
    leak = point.only()
    assert place(leak) == (HERE, line_of("the child"))
    assert leak.creator.kind == "thread"


async def start_in_loop():
    return await asyncio.create_subprocess_exec(*SLEEP, stdin=subprocess.PIPE)  # async child


def test_an_asyncio_subprocess_without_a_wait(point):
    async def main():
        process = await start_in_loop()
        leak = point.only()
        process.stdin.close()
        await process.wait()
        return leak

    leak = asyncio.run(main())
    assert place(leak) == (HERE, line_of("async child"))
    assert (leak.creator.kind, leak.state) == ("task", "running")
    assert point.leaks() == []


def test_an_asyncio_subprocess_with_a_wait(point):
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0

    asyncio.run(main())
    assert point.leaks() == []
    assert leakguard.stats()["process"] == {"created": 1, "ended": 1, "live": 0}


# What becomes of a child.


def test_a_child_killed_by_a_signal(point, child):
    process = child()
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: is_zombie(process.pid))
    leak = point.only()
    assert (leak.state, leak.facts["status"]) == ("zombie", -9)
    assert leak.why == "it was killed by signal 9, and nobody has waited for it"


def test_looks_reap_nothing(point):
    process = subprocess.Popen(["sh", "-c", "exit 7"])
    until(lambda: is_zombie(process.pid))
    for _ in range(3):
        assert point.only().state == "zombie"
        leakguard.stats()
        leakguard.snapshot(kinds="process")
    assert process.wait() == 7


def start_and_drop():
    process = subprocess.Popen(SLEEP, stdin=subprocess.PIPE)
    return process.pid, process.stdin


def test_a_popen_object_that_was_dropped_is_a_leak_still(point):
    pid, stdin = start_and_drop()
    assert point.only().state == "running"
    stdin.close()
    until(lambda: is_zombie(pid))
    assert point.only().state == "zombie"
    subprocess._cleanup()  # as the next Popen would
    assert point.leaks() == []


def test_ended_and_live_are_created_at_every_moment(point, child):
    child()
    subprocess.run(["true"], check=True)
    pid, stdin = start_and_drop()
    assert leakguard.stats()["process"] == {"created": 3, "ended": 1, "live": 2}
    stdin.close()
    until(lambda: is_zombie(pid))
    subprocess._cleanup()
    assert leakguard.stats()["process"] == {"created": 3, "ended": 2, "live": 1}


def test_a_failing_exec_leaves_none(point):
    with pytest.raises(FileNotFoundError):
        subprocess.Popen(["/nonexistent"])
    with pytest.raises(FileNotFoundError):
        os.posix_spawn("/nonexistent", ["x"], {})
    with pytest.raises(TypeError):
        os.posix_spawn("/bin/true")
    assert point.leaks() == []
    assert leakguard.stats()["process"]["live"] == 0


def test_a_start_that_fails_leaves_none(point):
    # An argument that fork_exec itself refuses: what Popen gives, with descriptors out of order.
    vfork = [True] if hasattr(subprocess, "_USE_VFORK") else []
    last = [5, 6, False, False, -1, None, None, None, -1, None, *vfork]
    with pytest.raises(ValueError, match="fds_to_keep"):
        subprocess._fork_exec(["true"], [b"true"], True, (5, 4), None, None, *[-1] * 6, *last)
    assert leakguard.stats()["process"] == {"created": 0, "ended": 0, "live": 0}


PROGRAM = """
import os, signal, subprocess, sys, time, warnings
import leakguard
warnings.simplefilter("ignore")
leakguard.install(kinds=("process",))
point = leakguard.checkpoint()
def show():
    print([(leak.function, leak.state) for leak in point.leaks(kinds="process")], flush=True)
"""


# The next pid cannot be chosen everywhere. So os.fork is one here that gives the same pid again, as
# the kernel may once the first child has been waited for.
PID_AGAIN = (
    """
import ctypes, os, posix, subprocess
def field(address, offset=0):
    return ctypes.c_void_p.from_address(address + offset)
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
@ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
def fork(module, unused):
    return child.pid
method = field(id(posix.fork), 16).value
field(method, 8).value = ctypes.cast(fork, ctypes.c_void_p).value
"""
    + PROGRAM
    + """
def first():
    assert os.fork() == child.pid
def second():
    assert os.fork() == child.pid
def found():
    print([leak.creation_stack[-1].name for leak in point.leaks(kinds="process")])
first()
"""
)


def test_a_pid_that_has_gone_to_another_child(program):
    result = program(
        PID_AGAIN
        + """
# Not looked at since: the record of the first still lives when the second gets its pid.
second()
print(leakguard.stats()["process"])
found()
child.communicate()
found()
print(leakguard.stats()["process"], leakguard._core.failures())
"""
    )
    assert result.stdout.splitlines() == [
        "{'created': 2, 'ended': 1, 'live': 1}",
        "['second']",
        "[]",
        "{'created': 2, 'ended': 2, 'live': 0} 0",
    ], result.stderr


def test_a_pid_that_has_gone_to_a_child_that_no_hook_has_seen(program):
    result = program(
        PID_AGAIN
        + """
found()
# What has the pid now began at another time than what was recorded.
with open(f"/proc/{child.pid}/stat") as file:
    ticks = int(file.read().rpartition(")")[2].split()[19])
[record] = leakguard._core.live(0, 1 << leakguard._kinds.KINDS.index("process"))
start = field(id(record.object), 24)
print(start.value == ticks)
start.value -= 1
found()
print(leakguard.stats()["process"])
child.communicate()
"""
    )
    assert result.stdout.splitlines() == [
        "['first']",
        "True",
        "[]",
        "{'created': 1, 'ended': 1, 'live': 0}",
    ], result.stderr


def test_children_that_the_system_reaps(program):
    result = program(
        PROGRAM
        + """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
show()
process.stdin.close()
while os.path.exists(f"/proc/{process.pid}"):
    time.sleep(0.001)
show()
print(process.wait(), leakguard.stats()["process"])
"""
    )
    assert result.stdout.splitlines() == [
        "[('Popen', 'running')]",
        "[]",
        "0 {'created': 1, 'ended': 1, 'live': 0}",
    ], result.stderr


DAEMON = """
read, write = os.pipe()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os.setsid()
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os._exit(0)
os.close(read)
show()
print(os.waitpid(child, 0) == (child, 0))
show()
os.close(write)
"""


def test_a_daemon_forked_twice_is_not_ours(program):
    result = program(PROGRAM + DAEMON)
    lines = result.stdout.splitlines()
    assert lines[0] in ("[('fork', 'running')]", "[('fork', 'zombie')]"), result.stderr
    assert lines[1:] == ["True", "[]"]


def test_what_a_subreaper_inherits_was_not_created_here(program):
    result = program(
        PROGRAM
        + "import ctypes\nassert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        + DAEMON
        + "print(os.wait()[0] not in (0, child))\nshow()\n"
    )
    assert result.stdout.splitlines()[1:] == ["True", "[]", "True", "[]"], result.stderr


def test_a_childs_siblings_are_not_its_children(program):
    result = program(
        PROGRAM
        + """
sibling = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
child = os.fork()
if child == 0:
    found = leakguard.snapshot(kinds="process")
    print(leakguard.stats()["process"]["live"], len(found), flush=True)
    mine = subprocess.Popen(["true"])
    print(leakguard.stats()["process"]["live"], flush=True)
    mine.wait()
    os._exit(leakguard.stats()["process"]["live"])
print(os.waitpid(child, 0)[1])
show()
sibling.communicate()
show()
"""
    )
    assert result.stdout.splitlines() == [
        "0 0",
        "1",
        "0",
        "[('Popen', 'running')]",
        "[]",
    ], result.stderr


# The other checks.


def test_a_guard_names_the_kind(child):
    with pytest.raises(leakguard.LeakError) as raised:
        with leakguard.guard(kinds="process", grace=0):
            child()
    text = str(raised.value)
    assert text.startswith("leakguard: 1 leak since the block began (1 process; ")
    assert "1. process Popen" in text


def test_the_grace_waits_for_a_child_that_ends_and_is_waited_for():
    with leakguard.guard(kinds="process", grace=60):
        process = subprocess.Popen(["true"])
        threading.Thread(target=process.wait).start()


def test_assert_stable_counts_children_by_site(child):
    leakguard.assert_stable("children", kinds="process", grace=0)
    child()
    with pytest.raises(leakguard.LeakError, match="0 → 1"):
        leakguard.assert_stable("children", kinds="process", grace=0)


def test_the_pytest_marker(suite):
    result = suite(
        test_children="""
        import subprocess, sys
        import pytest

        pytestmark = pytest.mark.leakguard(kinds=("process",), grace=0)

        def test_leaks():
            command = [sys.executable, "-c", "input()"]
            test_leaks.child = subprocess.Popen(command, stdin=subprocess.PIPE)

        def test_ends():
            subprocess.run(["true"], check=True)
        """
    )
    assert (result.leaking, result.clean) == (["test_leaks"], ["test_ends"])
    assert "process Popen" in result.text


def test_uninstall_puts_back():
    leakguard.install(kinds=("process",))
    leakguard.uninstall()
    leakguard.install(kinds=("task",))
    subprocess.run(["true"], check=True)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    assert leakguard.stats()["process"] == {"created": 0, "ended": 0, "live": 0}


def test_the_entries_are_the_originals_after_uninstall(program):
    result = program(
        """
import ctypes, os, posix, subprocess, _posixsubprocess
import leakguard
def entry(function):
    table = ctypes.c_void_p.from_address(id(function) + 16).value
    return ctypes.c_void_p.from_address(table + 8).value
functions = [posix.fork, posix.forkpty, posix.posix_spawn, posix.posix_spawnp]
functions.append(_posixsubprocess.fork_exec)
before = [entry(it) for it in functions]
leakguard.install(kinds=("process",))
print(sum(entry(it) != old for it, old in zip(functions, before)))
leakguard.uninstall()
print([entry(it) for it in functions] == before)
"""
    )
    assert result.stdout.splitlines() == ["5", "True"], result.stderr


def test_nothing_of_the_program_is_kept_alive(point):
    import weakref

    process = subprocess.Popen(["true"])
    process.wait()
    gone = weakref.ref(process)
    del process
    assert gone() is None


def test_long_commands_are_cut(point):
    pid = os.posix_spawn("/bin/true", ["x" * 500, "a", "b", "secret"], {})
    leak = point.only()
    assert [len(word) for word in leak.facts["args"]] == [80, 1, 1, 1]
    assert "secret" not in str(leak.to_dict())
    os.waitpid(pid, 0)


def test_the_audit_events_count_the_same_processes(point):
    _core.witness_start()
    subprocess.run(["true"], check=True)
    subprocess.run(["true"], check=True, close_fds=False)
    with pytest.raises(ValueError, match="null"):
        subprocess.run(["\0"], check=True)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    with pytest.raises(FileNotFoundError):
        os.posix_spawn("/nonexistent", ["true"], {})
    with pytest.raises(TypeError):
        os.posix_spawn("/bin/true", "no list", {})
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    process = multiprocessing.get_context("spawn").Process(target=int)  # nobody announces it
    process.start()
    process.join()
    witnessed, seen = _core.witness_counts()["process"]
    _core.witness_stop()
    assert (witnessed, seen) == (6, 6)
    assert _core.failures() == 0
