import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import leakguard

PROGRAMS = Path(__file__).parent.parent / "programs"


@pytest.fixture(autouse=True)
def untracked():
    """Each test begins and ends without leakguard installed."""
    leakguard.uninstall()
    yield
    leakguard.uninstall()


@pytest.fixture
def release():
    """An event for the test's threads to wait for; set at its end, and the threads joined."""
    before = set(threading.enumerate())
    event = threading.Event()
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


def clean_environment(**variables):
    """This environment without LEAKGUARD variables, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LEAKGUARD") and name not in ("FORCE_COLOR", "NO_COLOR")
    }
    return {**kept, **variables}


@pytest.fixture
def run():
    """Runs Python with these arguments in a fresh process: a real user's start."""

    def run_python(*arguments, cwd=None, **variables):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=clean_environment(**variables),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_python


@pytest.fixture
def program(run, tmp_path):
    """Runs a program given as text, named app.py, in its own folder."""

    def run_text(text, *arguments, before=(), **variables):
        path = tmp_path / "app.py"
        path.write_text(text, encoding="utf-8")
        return run(*before, path, *arguments, cwd=tmp_path, **variables)

    return run_text


def line_of(text):
    """The number of the line of the calling test's file that ends in `# text`."""
    frame = sys._getframe(1)
    lines = Path(frame.f_code.co_filename).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    assert len(found) == 1, f"{text!r} marks {len(found)} lines"
    return found[0]
