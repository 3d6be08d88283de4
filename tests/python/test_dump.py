"""A live look: LEAKGUARD_SIGNAL and python -m leakguard dump."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest

SERVICE = """
import asyncio, threading, time

def tick():
    time.sleep(3600)

async def wait():
    await asyncio.sleep(3600)

async def main():
    threading.Thread(target=tick, daemon=True).start()
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    print("ready", flush=True)
    for _ in range(3600):
        await asyncio.sleep(1)

asyncio.run(main())
"""


needs_remote_exec = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="sys.remote_exec is new in CPython 3.14"
)


@pytest.fixture
def private(tmp_path):
    """A runtime folder of the test's own."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(folder)}


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(report):
    """How often a report file names the task that runs `wait`."""
    lines = report.read_text().splitlines() if report.exists() else []
    return sum(json.loads(line)["function"] == "wait" for line in lines)


def test_the_signal_writes_a_snapshot_to_the_report(start, private, tmp_path):
    report = tmp_path / "found.jsonl"
    process = start(
        SERVICE, LEAKGUARD="1", LEAKGUARD_SIGNAL="SIGUSR2", LEAKGUARD_REPORT=str(report), **private
    )
    for count in (1, 2):
        process.send_signal(signal.SIGUSR2)
        wait_for(lambda count=count: waiting(report) == count)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"snapshot"}
    assert {line["function"] for line in lines} >= {"main", "wait", "tick"}
    assert process.poll() is None


def test_dump_prints_what_is_alive(start, run, private, tmp_path):
    process = start(SERVICE, LEAKGUARD="1", LEAKGUARD_SIGNAL="SIGUSR2", **private)
    folder = Path(private["XDG_RUNTIME_DIR"]) / "leakguard"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / str(process.pid)).stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        found = run("-m", "leakguard", "dump", process.pid, cwd=tmp_path, **private)
        assert (found.returncode, found.stderr) == (0, "")
        assert "leakguard: 4 live resources (2 tasks, 2 threads)" in found.stdout
        assert "created at app.py:12 in main" in found.stdout
    assert [path.name for path in folder.iterdir()] == [str(process.pid)]
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert "at termination" in stderr
    assert "live resources (" not in stderr
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(hasattr(sys, "remote_exec"), reason="CPython 3.14 can be asked all the same")
def test_a_process_that_does_not_listen_is_not_killed(start, run, private, tmp_path):
    process = start("import time; print('ready', flush=True); time.sleep(3600)")
    found = run("-m", "leakguard", "dump", process.pid, cwd=tmp_path, **private)
    assert found.returncode == 1
    assert f"process {process.pid} does not listen: start it with LEAKGUARD=1" in found.stderr
    assert process.poll() is None


def test_a_rendezvous_file_of_another_process_is_not_believed(start, run, private, tmp_path):
    process = start("import time; print('ready', flush=True); time.sleep(3600)")
    folder = Path(private["XDG_RUNTIME_DIR"]) / "leakguard"
    folder.mkdir(mode=0o700)
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    # Right in all, but that the process has no handler; and then of one that began before.
    for text in (f"{signal.SIGUSR2:d} {stat}", f"{signal.SIGUSR2:d} 1", "nonsense"):
        (folder / str(process.pid)).write_text(text)
        run("-m", "leakguard", "dump", process.pid, cwd=tmp_path, **private)
        assert process.poll() is None


@needs_remote_exec
def test_dump_of_a_process_without_leakguard(start, run, private, tmp_path):
    process = start(SERVICE)
    found = run("-m", "leakguard", "dump", process.pid, cwd=tmp_path, **private)
    assert (found.returncode, found.stderr) == (0, "")
    assert re.search(r"leakguard: \d live resources \(2 tasks, 2 threads\)", found.stdout)
    assert "task wait" in found.stdout
    assert "waiting at app.py:8 in wait" in found.stdout
    assert "note: the process was started without leakguard" in found.stdout
    assert process.poll() is None


@needs_remote_exec
def test_dump_of_a_watched_process_without_a_signal_has_creation_lines(
    start, run, private, tmp_path
):
    process = start(SERVICE, LEAKGUARD="1")
    found = run("-m", "leakguard", "dump", process.pid, cwd=tmp_path, **private)
    assert (found.returncode, found.stderr) == (0, "")
    assert "created at app.py:12 in main" in found.stdout


@pytest.mark.parametrize(("pid", "complaint"), [(2**22 + 1, "there is no process"), (0, "no proc")])
def test_a_wrong_process_id(run, private, pid, complaint):
    found = run("-m", "leakguard", "dump", pid, **private)
    assert found.returncode == 1
    assert complaint in found.stderr


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "USR2", "12"])
def test_a_signal_that_cannot_be_listened_to(program, name):
    found = program("print(1)", LEAKGUARD="1", LEAKGUARD_SIGNAL=name)
    assert found.stdout == "1\n"
    assert found.stderr == (
        f"leakguard: LEAKGUARD_SIGNAL is '{name}'; allowed: the name of a signal that the program "
        "does not use, like SIGUSR2; no signal asks for a snapshot\n"
    )


def test_without_a_place_for_the_file_the_signal_still_works(program, tmp_path):
    found = program(
        "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)",
        LEAKGUARD="1",
        LEAKGUARD_SIGNAL="SIGUSR2",
        XDG_RUNTIME_DIR=str(tmp_path / "none"),
    )
    assert found.returncode == 0
    assert "no rendezvous file: " in found.stderr
    assert "1 live resource (1 thread)" in found.stderr
