"""LEAKGUARD=1 and the ways out: SIGTERM, os._exit, forked children, daemon threads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import clean_environment

SERVICE = """
import os, signal, sys, threading, time

def tick():
    while True:
        time.sleep(3600)

threading.Thread(target=tick, daemon=True).start()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""

PATIENT = {"LEAKGUARD": "1", "LEAKGUARD_GRACE": "20"}  # for a machine that is busy


def terminate(process):
    """(status, what it wrote to stderr) after a SIGTERM."""
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def ticks(pid):
    """How long a process has run, in ticks of the clock."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(3600)",
        "threading.Event().wait()",
        "import select; select.select([], [], [], 3600)",
        "while True: pass",
        "import asyncio; asyncio.run(asyncio.sleep(3600))",
        "threading.Thread(target=time.sleep, args=(3600,)).start()",
    ],
)
def test_sigterm_writes_a_snapshot_and_kills_as_ever(start, wait):
    process = start(SERVICE + f"print('ready', flush=True)\n{wait}\n", **PATIENT)
    status, stderr = terminate(process)
    assert status == -signal.SIGTERM
    assert "leakguard: " in stderr
    assert " at termination (" in stderr
    assert "thread tick, 1 alive" in stderr
    assert "created at app.py:8 in <module>" in stderr


def test_a_signal_that_comes_to_another_thread_wakes_the_main_thread(start):
    """As one does that comes just before the main thread begins to wait."""
    text = (
        SERVICE
        + """
import select
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
select.select([], [], [], 3600)
"""
    )
    status, stderr = terminate(start(text, **PATIENT))
    assert status == -signal.SIGTERM
    assert stderr.count("thread tick, 1 alive") == 1


def test_a_handler_of_the_program_is_the_programs(start):
    text = (
        SERVICE
        + """
def stop(number, frame):
    print("stopped by", number)
    sys.exit(5)

signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(3600)
"""
    )
    process = start(text, LEAKGUARD="1")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (stdout, process.returncode) == ("stopped by 15\n", 5)
    assert "termination" not in stderr


@pytest.mark.parametrize(
    "default",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
        "import asyncio\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.add_signal_handler(signal.SIGTERM, print)\n"
        "    loop.remove_signal_handler(signal.SIGTERM)\n"
        "asyncio.run(main())",
    ],
)
def test_the_default_set_back_by_the_program_is_watched_again(start, default):
    text = (
        SERVICE
        + f"""
signal.signal(signal.SIGTERM, lambda *_: None)
{default}
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print("ready", flush=True)
time.sleep(3600)
"""
    )
    status, stderr = terminate(start(text, **PATIENT))
    assert status == -signal.SIGTERM
    assert stderr.count("thread tick, 1 alive") == 1


def test_raised_by_the_program_itself(start):
    text = SERVICE + "print('ready', flush=True)\nsignal.raise_signal(signal.SIGTERM)\n"
    process = start(text, **PATIENT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert "thread tick, 1 alive" in stderr


def test_an_ignored_signal_stays_ignored(start):
    text = (
        SERVICE
        + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("alive")
"""
    )
    process = start(text, LEAKGUARD="1")
    stdout, _ = process.communicate(timeout=60)
    assert (stdout, process.returncode) == ("alive\n", 0)


def test_where_no_python_runs_the_process_dies_after_the_grace_with_one_line(start):
    # A loop in C, which looks at no signal for longer than anybody waits.
    text = SERVICE + "print('ready', flush=True)\nsum(range(10**12))\n"
    process = start(text, LEAKGUARD="1", LEAKGUARD_GRACE="0.2")
    while ticks(process.pid) < 2 * os.sysconf("SC_CLK_TCK") // 5:
        time.sleep(0.01)  # it is on its way to that loop
    status, stderr = terminate(process)
    assert status == -signal.SIGTERM
    assert stderr == "leakguard: SIGTERM: no Python ran within the grace: no snapshot\n"


def test_the_snapshot_in_a_file(start, tmp_path):
    text = SERVICE + "print('ready', flush=True)\ntime.sleep(3600)\n"
    process = start(text, **PATIENT, LEAKGUARD_REPORT="found-%p.jsonl")
    assert terminate(process) == (-signal.SIGTERM, "")
    path = tmp_path / f"found-{process.pid}.jsonl"
    [line] = map(json.loads, path.read_text().splitlines())
    assert line["reason"] == "terminated"
    assert line["pid"] == process.pid
    assert line["function"] == "tick"
    assert path.stat().st_mode & 0o777 == 0o600


def test_children_of_a_watched_process_die_of_sigterm_without_a_snapshot(start):
    text = (
        SERVICE
        + """
import multiprocessing, subprocess
pid = os.fork()
if pid == 0:
    time.sleep(3600)
    os._exit(0)
inner = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
inner.stdout.readline()
inner.terminate()
os.kill(pid, signal.SIGTERM)
print("ready", flush=True)
print(inner.wait(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
"""
    )
    process = start(text, "-W", "ignore", LEAKGUARD="1")
    stdout, stderr = process.communicate(timeout=60)
    assert stdout == "-15 -15\n[1, 2]\n"
    assert process.returncode == 0
    assert "termination" not in stderr


def test_os_exit_leaves_a_note_and_its_status(program):
    found = program(SERVICE + "os._exit(7)\n", LEAKGUARD="exit")
    assert found.returncode == 7
    assert "leakguard: 1 live resource at os._exit (1 thread)" in found.stderr
    assert "thread tick, 1 alive" in found.stderr


def test_daemon_threads_at_exit_are_notes_and_change_no_status(program, tmp_path):
    found = program(SERVICE, LEAKGUARD="exit")
    assert found.returncode == 0
    assert "leakguard: 1 live resource at exit (1 thread)" in found.stderr
    written = program(SERVICE, LEAKGUARD="exit", LEAKGUARD_REPORT="notes.jsonl")
    assert (written.returncode, written.stderr) == (0, "")
    [line] = map(json.loads, (tmp_path / "notes.jsonl").read_text().splitlines())
    assert line["note"] is True
    assert line["reason"] == "exit"


def test_tasks_of_a_daemon_threads_loop_are_notes(program):
    text = """
import asyncio, threading
ready = threading.Event()

async def serve():
    ready.set()
    await asyncio.sleep(3600)

threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
ready.wait()
"""
    found = program(text, LEAKGUARD="exit")
    assert found.returncode == 0
    assert "2 live resources at exit (1 task, 1 thread)" in found.stderr


def test_the_end_of_a_forked_child_leaves_notes(program):
    text = """
import os, sys, threading, time

def tick():
    time.sleep(3600)

pid = os.fork()
if pid == 0:
    threading.Thread(target=tick, daemon=True).start()
    sys.exit(3) if sys.argv[1] == "exit" else os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    for way in ("exit", "_exit"):
        found = program(text, way, LEAKGUARD="exit")
        assert (found.returncode, found.stdout) == (0, "3\n")
        assert found.stderr.count("1 live resource at the end of a forked child (1 thread)") == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_end_of_a_multiprocessing_child(program, method):
    text = f"""
import multiprocessing, sys, threading, time

def tick():
    time.sleep(3600)

def work():
    threading.Thread(target=tick, daemon=True).start()
    sys.exit(4)

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
"""
    plain = program(text)
    found = program(text, LEAKGUARD="exit")
    assert (plain.returncode, plain.stdout) == (found.returncode, found.stdout) == (0, "4\n")
    assert found.stderr.count("thread tick, 1 alive") == 1
    moment = "at exit" if method == "spawn" else "at the end of a forked child"
    assert f"1 live resource {moment} (1 thread)" in found.stderr


def test_what_is_put_back_when_the_program_ends_the_tracking(program):
    text = """
import os, signal, threading
import leakguard
leakguard.uninstall()
assert type(os._exit).__name__ == "builtin_function_or_method"
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGTERM)
"""
    found = program(text, LEAKGUARD="1")
    assert found.returncode == -signal.SIGTERM
    assert found.stderr == ""


def test_process_1_is_left_alone(tmp_path):
    """The kernel never kills process 1 by default: a handler would."""
    path = tmp_path / "app.py"
    path.write_text(
        "import os, signal\nassert os.getpid() == 1\nos.kill(1, signal.SIGTERM)\nprint('alive')\n"
    )
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if os.getuid() != 0:
        unshare.insert(1, "--map-root-user")
    found = subprocess.run(
        [*unshare, sys.executable, str(path)],
        env=clean_environment(LEAKGUARD="1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.stdout, found.returncode) == ("alive\n", 0)
