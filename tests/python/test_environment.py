"""LEAKGUARD=1: a program of which no line is changed, installed from a wheel."""

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .conftest import PROGRAMS, clean_environment

LEAKY_LOOP = """
import asyncio
async def reader():
    await asyncio.sleep(3600)
async def main():
    asyncio.create_task(reader())  # line 6
    await asyncio.sleep(0)
asyncio.run(main())
print("done")
"""

SLOW_THREAD = """
import threading, time
def slow():
    time.sleep(0.6)
    print("slow done")
threading.Thread(target=slow).start()  # line 6
print("main done")
"""

CLEAN = """
import asyncio, concurrent.futures, threading
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    await asyncio.to_thread(int)
asyncio.run(main())
pool = concurrent.futures.ThreadPoolExecutor(2)
pool.submit(int).result()
threading.Thread(target=int).start()
print("done")
"""


def test_the_functions_of_checkpoints_are_loaded_when_they_are_asked_for(run):
    text = """
import sys, leakguard
def is_loaded():
    return "leakguard._checkpoint" in sys.modules
print(set(leakguard.__all__) <= set(dir(leakguard)), hasattr(leakguard, "no"), is_loaded())
from leakguard import checkpoint
print(is_loaded(), checkpoint is leakguard.checkpoint is vars(leakguard)["checkpoint"])
from leakguard import *
print(snapshot is vars(leakguard)["snapshot"])
"""
    result = run("-c", text)
    assert (result.stdout, result.stderr) == ("True False False\nTrue True\nTrue\n", "")


def test_unset_or_0_imports_nothing(program):
    text = "import sys; print(sorted(name for name in sys.modules if 'leakguard' in name))\n"
    assert program(text).stdout == "['_leakguard_autostart']\n"
    for value in ("", "0"):
        assert program(text, LEAKGUARD=value).stdout == "['_leakguard_autostart']\n"


# What an interpreter has loaded once it has started, but for what the start-up file brings.
LOADED = """
import sys
print(sorted(name for name in sys.modules if name not in ("_leakguard_autostart", "sitecustomize")))
"""


def test_the_start_up_file_itself_imports_nothing_else(run, tmp_path):
    """What `site` imports to act on it counts too: 3.15 and later know two kinds of such files."""
    folder = Path(sysconfig.get_path("platlib"))
    [file] = [path for path in folder.glob("leakguard.*") if path.suffix in (".pth", ".start")]
    assert file.suffix == (".pth" if sys.version_info < (3, 18) else ".start")
    empty = tmp_path / "empty"
    with_it = tmp_path / "with it"
    for site in (empty, with_it):
        site.mkdir()
        (site / "another.pth").write_text("# of no package\n")  # to read one, some import a codec
    for path in (file, folder / "_leakguard_autostart.py"):
        shutil.copy(path, with_it)
    found = [
        run("-S", "-c", f"import site; site.addsitedir({str(site)!r})\n{LOADED}")
        for site in (empty, with_it)
    ]
    assert [result.stderr for result in found] == ["", ""]
    assert found[0].stdout == found[1].stdout
    assert "'re'" not in found[1].stdout


@pytest.mark.parametrize("options", [["-W", "error"], ["-X", "dev"], ["-bb", "-W", "always"]])
def test_the_start_up_file_gives_no_warning(options, program):
    """Import lines in .pth files are deprecated from 3.15 on, without a word up to 3.19."""
    for variables in ({}, {"PYTHONWARNINGS": "error"}):
        for leakguard in ("0", "1"):
            result = program("print(1)", before=options, LEAKGUARD=leakguard, **variables)
            assert (result.stdout, result.stderr) == ("1\n", "")


def test_tasks_left_at_the_end_of_asyncio_run_are_reported(program):
    result = program(LEAKY_LOOP, LEAKGUARD="1")
    assert (result.stdout, result.returncode) == ("done\n", 0)
    assert result.stderr.startswith("leakguard: 1 leak at loop end (1 task; waited")
    assert "1. task reader, 1 alive" in result.stderr
    assert "created at app.py:6 in main" in result.stderr
    assert "waiting at app.py:4 in reader" in result.stderr


def test_a_thread_that_holds_up_the_exit_is_reported_while_it_does(program):
    result = program(SLOW_THREAD, LEAKGUARD="1", LEAKGUARD_GRACE="0.1")
    assert (result.stdout, result.returncode) == ("main done\nslow done\n", 0)
    assert result.stderr.startswith("leakguard: 1 leak at shutdown (1 thread; waited 0.")
    assert "created at app.py:6 in <module>" in result.stderr
    assert "waiting at app.py:4 in slow" in result.stderr


def test_a_thread_that_ends_within_the_grace_is_not(program):
    result = program(SLOW_THREAD, LEAKGUARD="exit", LEAKGUARD_GRACE="30")
    assert (result.stdout, result.stderr, result.returncode) == ("main done\nslow done\n", "", 0)


def test_exit_takes_the_place_of_status_0_only(program):
    assert program(LEAKY_LOOP, LEAKGUARD="exit").returncode == 23
    assert program(LEAKY_LOOP, LEAKGUARD="exit", LEAKGUARD_EXITCODE="7").returncode == 7
    assert program(LEAKY_LOOP + "raise SystemExit(5)\n", LEAKGUARD="exit").returncode == 5
    assert program(LEAKY_LOOP + "raise ValueError\n", LEAKGUARD="exit").returncode == 1
    assert program(CLEAN, LEAKGUARD="exit").returncode == 0


@pytest.mark.parametrize("text", [CLEAN, LEAKY_LOOP, SLOW_THREAD, "raise SystemExit('bye')\n"])
def test_stdout_and_status_are_those_of_the_program(text, program):
    plain = program(text)
    watched = program(text, LEAKGUARD="1", LEAKGUARD_GRACE="0.1")
    assert (watched.stdout, watched.returncode) == (plain.stdout, plain.returncode)


def test_a_clean_program_says_nothing(program):
    result = program(CLEAN, LEAKGUARD="1", LEAKGUARD_WITNESS="1")
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


def test_an_idle_pool_does_not_hold_up_the_exit_and_a_busy_one_does(program):
    result = program(
        "import concurrent.futures, time\n"
        "pool = concurrent.futures.ThreadPoolExecutor(2)\n"
        "def job():\n    time.sleep(0.6)\n"
        "pool.submit(int).result()\n"
        "pool.submit(job)\n",
        LEAKGUARD="exit",
        LEAKGUARD_GRACE="0.1",
    )
    assert result.returncode == 23
    assert "1 leak at shutdown" in result.stderr
    assert "1. thread job, 1 alive" in result.stderr


def test_a_thread_that_waits_for_the_main_thread_to_end_is_clean(program):
    result = program(
        "import threading\n"
        "def follow():\n"
        "    threading.main_thread().join()\n"
        "    print('main ended')\n"
        "threading.Thread(target=follow).start()\n",
        LEAKGUARD="exit",
        LEAKGUARD_GRACE="5",
    )
    assert (result.stdout, result.stderr, result.returncode) == ("main ended\n", "", 0)


def test_tasks_of_a_loop_that_nobody_closed_are_reported_at_shutdown(program):
    result = program(
        "import asyncio\n"
        "async def reader():\n    await asyncio.sleep(3600)\n"
        "async def main():\n    asyncio.create_task(reader())\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.run_until_complete(main())\n"
        "loop.run_until_complete(asyncio.sleep(0))\n",
        LEAKGUARD="exit",
    )
    assert result.returncode == 23
    assert "leakguard: 1 leak at shutdown (1 task" in result.stderr
    assert "created at app.py:5 in main" in result.stderr


def test_what_a_guard_reports_is_not_reported_again(program):
    result = program(
        "import asyncio, leakguard\n"
        "async def reader():\n    await asyncio.sleep(3600)\n"
        "async def main():\n    asyncio.create_task(reader())\n    await asyncio.sleep(0)\n"
        "reports = []\n"
        "with leakguard.guard(action=reports.append):\n    asyncio.run(main())\n"
        "print([len(report) for report in reports])\n",
        LEAKGUARD="exit",
    )
    assert (result.stdout, result.stderr, result.returncode) == ("[1]\n", "", 0)


def test_a_thread_that_a_guard_reported_is_not_reported_again_at_exit(program):
    result = program(
        "import leakguard, threading, time\n"
        "reports = []\n"
        "with leakguard.guard(action=reports.append, grace=0):\n"
        "    threading.Thread(target=time.sleep, args=(0.5,)).start()\n"
        "print([len(report) for report in reports])\n",
        LEAKGUARD="exit",
        LEAKGUARD_GRACE="0.05",
    )
    assert (result.stdout, result.returncode) == ("[1]\n", 0)
    assert "leak at shutdown" not in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LEAKGUARD", "yes", ["LEAKGUARD", "yes", "exit"]),
        ("LEAKGUARD_GRACE", "soon", ["LEAKGUARD_GRACE", "soon", "1.0"]),
        ("LEAKGUARD_KINDS", "task,timers", ["LEAKGUARD_KINDS", "timers", "task"]),
        ("LEAKGUARD_STACK_DEPTH", "0", ["LEAKGUARD_STACK_DEPTH", "1", "1024", "64"]),
        ("LEAKGUARD_EXITCODE", "999", ["LEAKGUARD_EXITCODE", "255", "23"]),
        ("LEAKGUARD_WITNESS", "maybe", ["LEAKGUARD_WITNESS", "maybe"]),
    ],
)
def test_a_wrong_setting_gives_one_line_and_its_default(variable, value, words, program):
    result = program(CLEAN, **{"LEAKGUARD": "1", variable: value})
    assert (result.stdout, result.returncode) == ("done\n", 0)
    (line,) = result.stderr.splitlines()
    for word in ("leakguard", *words):
        assert word in line


@pytest.mark.parametrize("option", ["-E", "-I", "-S"])
def test_options_that_ignore_the_environment_or_site_switch_it_off(option, program):
    result = program(LEAKY_LOOP, before=[option], LEAKGUARD="exit")
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


def test_a_report_file_gets_one_json_line_a_leak(program, tmp_path):
    result = program(LEAKY_LOOP, LEAKGUARD="1", LEAKGUARD_REPORT="leaks-%p.jsonl")
    assert (result.stdout, result.stderr) == ("done\n", "")
    (path,) = tmp_path.glob("leaks-*.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = path.read_text().splitlines()
    leak = json.loads(line)
    assert (leak["schema"], leak["kind"], leak["function"]) == (1, "task", "reader")
    assert f"leaks-{leak['pid']}.jsonl" == path.name


def test_a_report_file_that_cannot_be_written_is_said_and_replaced_by_stderr(program):
    result = program(LEAKY_LOOP, LEAKGUARD="exit", LEAKGUARD_REPORT="/dev/full")
    assert (result.stdout, result.returncode) == ("done\n", 23)
    assert "LEAKGUARD_REPORT" in result.stderr.splitlines()[0]
    assert "1 leak at loop end" in result.stderr


def test_log_goes_through_logging(program):
    result = program(
        "import logging; logging.basicConfig(format='%(name)s|%(leak_kind)s')\n" + LEAKY_LOOP,
        LEAKGUARD="log",
    )
    assert (result.stdout, result.stderr) == ("done\n", "leakguard|task\n")


def test_a_closed_stderr_breaks_nothing(program):
    result = program("import os\nos.close(2)\n" + LEAKY_LOOP, LEAKGUARD="exit")
    assert (result.stdout, result.returncode) == ("done\n", 23)


def test_the_status_of_a_python_subprocess_is_left_alone(program):
    result = program(
        "import subprocess, sys\n"
        f"child = subprocess.run([sys.executable, '-c', {LEAKY_LOOP!r}], capture_output=True)\n"
        "print(child.returncode, b'1 leak at loop end' in child.stderr)\n",
        LEAKGUARD="exit",
    )
    assert (result.stdout, result.returncode) == ("0 True\n", 0)


def test_a_forked_childs_status_is_left_alone(program):
    result = program(
        "import os, sys\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import asyncio\n"
        "    async def reader():\n        await asyncio.sleep(3600)\n"
        "    async def main():\n        asyncio.create_task(reader())\n"
        "    asyncio.run(main())\n"
        "    sys.exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n",
        LEAKGUARD="exit",
    )
    assert (result.stdout, result.returncode) == ("0\n", 0)


def test_a_terminated_process_dies_of_the_signal():
    process = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(3600)"],
        env=clean_environment(LEAKGUARD="exit"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM
    process.stdout.close()


@pytest.mark.parametrize("held_up", [False, True])
def test_ctrl_c_works_as_ever(held_up, program, tmp_path):
    # A process started with `&` in a script ignores the signal.
    listens = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    text = f"{listens}import threading, time\nprint('up', flush=True)\n" + (
        "threading.Thread(target=time.sleep, args=(2,)).start()\n"
        if held_up
        else "time.sleep(3600)\n"
    )
    path = tmp_path / "app.py"
    path.write_text(text)
    statuses = []
    for variables in ({}, {"LEAKGUARD": "1", "LEAKGUARD_GRACE": "0.05"}):
        process = subprocess.Popen(
            [sys.executable, path],
            env=clean_environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"up\n"
        if held_up and variables:
            assert b"1 leak at shutdown" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        statuses.append((process.returncode, b"KeyboardInterrupt" in errors))
    if not held_up:
        assert statuses[0] == (-signal.SIGINT, True)
    assert statuses[0] == statuses[1] or held_up


def test_a_leaking_service_is_reported_with_its_two_creation_lines(run):
    result = run("-m", "leakguard", "run", PROGRAMS / "demo_service.py")
    assert result.stdout == "said hello 3 times\n"
    assert result.returncode == 23
    assert "leakguard: 3 leaks at loop end (3 tasks" in result.stderr
    assert "1. task Client._read, 3 alive" in result.stderr
    assert "self._reader = asyncio.create_task(self._read(self._stream))" in result.stderr
    assert "leakguard: 1 leak at shutdown (1 thread" in result.stderr
    assert "1. thread Worker._count, 1 alive" in result.stderr
    assert "self._thread.start()" in result.stderr


def test_the_corrected_service_is_clean(run):
    result = run("-m", "leakguard", "run", PROGRAMS / "demo_service_fixed.py")
    assert (result.stdout, result.stderr, result.returncode) == ("said hello 3 times\n", "", 0)


def test_many_processes_append_whole_lines_to_one_file(program, tmp_path):
    text = """
import multiprocessing, sys

def work(together):
    import asyncio

    async def main():
        for _ in range(200):
            asyncio.create_task(asyncio.sleep(3600), name="x" * 1000)
        together.wait()

    asyncio.run(main())

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    processes = [context.Process(target=work, args=(together,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""
    found = program(text, LEAKGUARD="1", LEAKGUARD_REPORT="found.jsonl")
    assert (found.returncode, found.stderr) == (0, "")
    lines = (tmp_path / "found.jsonl").read_text().splitlines()
    leaks = [leak for leak in map(json.loads, lines) if leak["reason"] == "loop end"]
    assert len(leaks) == 800
    assert len({leak["pid"] for leak in leaks}) == 4
