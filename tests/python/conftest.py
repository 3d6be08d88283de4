import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import pytest

import leakguard

from .causes import CAUSES

PROGRAMS = Path(__file__).parent.parent / "programs"
WRAPPER = shlex.split(os.environ.get("TEST_WRAPPER", ""))  # valgrind, for the programs that are run


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
            [*WRAPPER, sys.executable, *map(str, arguments)],
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


@pytest.fixture
def left_by(run):
    """Runs a function of tests/programs/causes inside a guard, and gives the report."""

    def run_function(module, function, *, grace=0.02):
        found = run(CAUSES / "run.py", module, function, grace, cwd=CAUSES)
        assert (found.returncode, found.stderr.count("Traceback")) == (0, 0), found.stderr
        return leakguard.Report.from_json(found.stdout)

    return run_function


class _Started(subprocess.Popen):
    def communicate(self, *arguments, **options):
        return tuple(data.decode() for data in super().communicate(*arguments, **options))


@pytest.fixture
def start(tmp_path):
    """Starts a program that prints "ready", and waits for that."""
    started = []

    def start_program(text, *options, arguments=(), **variables):
        path = tmp_path / "app.py"
        path.write_text(text, encoding="utf-8")
        process = _Started(
            [sys.executable, *options, str(path), *arguments],
            env=clean_environment(**variables),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read ahead here, communicate() would not see
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start_program
    for process in started:
        process.kill()
        process.communicate()


class Suite:
    """What a pytest run in a process of its own printed, and how each of its tests ended."""

    PLUGINS: ClassVar = {
        "asyncio": "pytest_asyncio.plugin",
        "aiohttp": "pytest_aiohttp.plugin",
        "aiohttp's own": "aiohttp.pytest_plugin",
        "anyio": "anyio.pytest_plugin",
        "xdist": "xdist.plugin",
        "rerunfailures": "pytest_rerunfailures",
        "timeout": "pytest_timeout",
        "hypothesis": "_hypothesis_pytestplugin",
    }

    def __init__(self, result):
        self.text = result.stdout.str() + result.stderr.str()
        self.status = result.ret
        self.outcomes = {}
        found = re.findall(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) \S+?::(\S+)", self.text, re.M)
        for outcome, name in found:
            self.outcomes.setdefault(name.rpartition("::")[2], []).append(outcome.lower())

    def ended(self, outcome):
        """The names of the tests with just this outcome, e.g. "passed", or "error passed"."""
        wanted = sorted(outcome.split())
        return sorted(name for name, found in self.outcomes.items() if sorted(found) == wanted)

    @property
    def clean(self):
        return self.ended("passed")

    @property
    def leaking(self):
        return self.ended("passed error")


@pytest.fixture
def suite(pytester, monkeypatch):
    """Runs pytest, as a user would, on the files given; without the plugins that are not named."""
    for name in [name for name in os.environ if name.startswith(("LEAKGUARD", "PYTEST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)  # pytest's summary then repeats whole errors

    def run_suite(*options, plugins=(), leakguard="leakguard", **files):
        for name, text in files.items():
            pytester.path.joinpath(f"{name}.py").write_text(dedent(text), encoding="utf-8")
        chosen = [*filter(None, [leakguard]), *(Suite.PLUGINS[name] for name in plugins)]
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        loaded = [word for name in chosen for word in ("-p", name)]
        return Suite(pytester.runpytest_subprocess(*loaded, "-rA", *options, timeout=120))

    return run_suite


def line_of(text):
    """The number of the line of the calling test's file that ends in `# text`."""
    frame = sys._getframe(1)
    lines = Path(frame.f_code.co_filename).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    assert len(found) == 1, f"{text!r} marks {len(found)} lines"
    return found[0]


def the_one(report):
    """The only leak of a report."""
    found = list(report)
    assert len(found) == 1, found
    return found[0]


class Since:
    """Installs leakguard for a kind, and others beside it: what is left of the one from then on."""

    def __init__(self, kind, *others):
        self._kind = kind
        leakguard.install(kinds=(kind, *others))
        self._point = leakguard.checkpoint()

    def leaks(self):
        return list(self._point.leaks(kinds=self._kind))

    def only(self):
        return the_one(self.leaks())


def place(leak):
    """The file and line of a leak's site."""
    return leak.site.filename, leak.site.lineno
