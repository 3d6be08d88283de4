"""Case `pytest`: a run of trivial tests, each checked, against a run without the plugin.

As where leakguard is installed and nothing else: pytest finds the plugin by its entry point, and
loads it as it loads each of these. All other plugins that this environment happens to have are
switched off in both runs, so that the one without is no slower than pytest by itself.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import figures
from cases import Case, Options
from figures import Absent, Figure
from harness import WORK_CPU, Pairs, clean_environment, on_cpu, quartiles, take_turns

NAME = "pytest"
TURNS = 7

# From the first test's set-up to the last one's teardown: no start-up, no collection.
CONFTEST = """
import time
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop():
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        print("runtestloop", time.perf_counter() - began)
"""

SYNC = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_nothing(number):
    pass
"""

ASYNC = """
import pytest

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range({count}))
async def test_nothing(number):
    pass
"""

OURS = "leakguard"
ASYNCIO = "asyncio"  # pytest-asyncio's
WITHOUT = ("-p", f"no:{OURS}")
UNASKED = ()
CHECKED = ("--leakguard",)


@dataclass
class Suite:
    """A file of trivial tests. `loops` collects what the tests alone took, run by run."""

    folder: Path
    count: int
    others: tuple[str, ...]  # plugins that take part in no run

    def run(self, options: Sequence[str], loops: list[float]) -> float:
        """Seconds for the whole run, start-up and collection included."""
        off = [part for name in ("cacheprovider", *self.others) for part in ("-p", f"no:{name}")]
        command = [sys.executable, "-m", "pytest", "-q", "-s", *off, *options, "test_it.py"]
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.folder, env=clean_environment(), capture_output=True, text=True
        )
        took = time.perf_counter() - began
        found = re.search(r"runtestloop ([\d.]+)", done.stdout)
        if done.returncode or not found or f"{self.count} passed" not in done.stdout:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
        loops.append(float(found[1]))
        return took


def pytest(options: Options) -> Iterator[Figure | Absent]:
    found = {it.name for it in importlib.metadata.entry_points(group="pytest11")}
    if OURS not in found:
        yield Absent(NAME, "--leakguard", "the plugin's entry point is not installed")
        return
    others = found - {OURS}
    sync = 200 if options.quick else 2_000
    with tempfile.TemporaryDirectory() as folder:
        suite = make(Path(folder, "sync"), SYNC, sync, others)
        yield from compare(suite, CHECKED, f"{sync:,} tests, --leakguard", budget=1.05)
        if options.quick:
            return
        yield from compare(suite, UNASKED, f"{sync:,} tests, plugin loaded and not asked")
        if ASYNCIO not in others:
            yield Absent(NAME, "async tests", "pytest-asyncio is not installed")
            return
        mode = "asyncio_mode = strict\n"
        suite = make(Path(folder, "async"), ASYNC, 500, others - {ASYNCIO}, mode)
        yield from compare(suite, CHECKED, "500 async tests, --leakguard")


def make(folder: Path, text: str, count: int, others: set[str], settings: str = "") -> Suite:
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text(f"[pytest]\n{settings}")
    (folder / "test_it.py").write_text(text.format(count=count))
    return Suite(folder, count, tuple(sorted(others)))


def compare(
    suite: Suite, with_options: Sequence[str], name: str, budget: float | None = None
) -> Iterator[Figure]:
    """The whole runs, and what one test took more."""
    pairs, loops_off, loops_on = Pairs(), list[float](), list[float]()
    with on_cpu(WORK_CPU):
        suite.run(with_options, [])
        take_turns(lambda: suite.run(WITHOUT, loops_off), lambda: suite.run(with_options, loops_on),
                   TURNS, pairs)  # fmt: skip
    note = f"{quartiles(pairs.off)[1]:.2f} s without"
    yield figures.of(pairs.ratios, NAME, name, "ratio", budget=budget, note=note)
    around = [(a + b) / 2 for a, b in itertools.pairwise(loops_off)]
    more = [(on - off) / suite.count * 1e6 for on, off in zip(loops_on, around, strict=True)]
    plain = quartiles(around)[1] / suite.count * 1e6
    yield figures.of(more, NAME, f"{name}, a test", "µs more", note=f"{plain:.0f} µs without")


CASES = [
    Case(
        NAME,
        "a run of 2,000 trivial tests, start-up included, and what a test took more",
        pytest,
        "most of the tests (it has 200), the unasked plugin, async tests",
    )
]
