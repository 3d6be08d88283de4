"""Case `startup`: the start and end of an interpreter that runs nothing.

An environment is made with leakguard as it is installed here and one without anything, so that the
start-up file itself is part of the difference; and another one without anything: what that takes
more is what this measurement cannot tell.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import figures
from cases import Case, Options
from figures import Figure
from harness import WORK_CPU, Pairs, clean_environment, on_cpu, quartiles, take_turns

NAME = "startup"


def startup(options: Options) -> Iterator[Figure]:
    turns = 15 if options.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        without = make_environment(Path(folder, "without"))
        another = make_environment(Path(folder, "another"))
        installed = make_environment(Path(folder, "installed"))
        copy_leakguard(site_packages(installed))
        programs = {"": "pass", ", and asyncio imported": "import asyncio"}
        for title, program in programs.items():
            if options.quick and title:
                continue
            off = partial(start, without, program, clean_environment())
            unset = partial(start, installed, program, clean_environment())
            on = partial(start, installed, program, clean_environment(LEAKGUARD="1"))
            same = partial(start, another, program, clean_environment())
            yield more(off, unset, turns, f"installed, LEAKGUARD unset{title}", 1.0)
            yield more(off, same, turns, f"not installed, another environment{title}")
            yield more(off, on, turns, f"LEAKGUARD=1{title}", 40.0)


def more(
    off: Callable[[], float],
    on: Callable[[], float],
    turns: int,
    name: str,
    budget: float | None = None,
) -> Figure:
    pairs = Pairs()
    with on_cpu(WORK_CPU):
        on()
        take_turns(off, on, turns, pairs)
    ratio, plain = quartiles(pairs.ratios)[1], quartiles(pairs.off)[1] * 1000
    return figures.of([it * 1000 for it in pairs.more], NAME, name, "ms more", budget=budget,
                      note=f"ratio {ratio:.2f}; {plain:.1f} ms without")  # fmt: skip


def start(python: Path, program: str, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    process = os.posix_spawn(python, [str(python), "-c", program], environment)
    status = os.waitpid(process, 0)[1]
    took = time.perf_counter() - began
    if status:
        sys.exit(f"{python} -c '{program}' ended with {status}")
    return took


def make_environment(folder: Path) -> Path:
    """Returns its interpreter."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True, env=clean_environment())
    return folder / "bin/python"


def site_packages(python: Path) -> Path:
    program = "import sysconfig; print(sysconfig.get_path('platlib'))"
    command = [str(python), "-c", program]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def copy_leakguard(target: Path) -> None:
    files = importlib.metadata.distribution("leakguard-runtime").files or ()
    for file in files:
        if ".." in file.parts:  # the script
            continue
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.locate(), target / file)
    if not (target / "leakguard.pth").exists():
        sys.exit("startup: leakguard is not installed from a wheel here: it has no leakguard.pth")


CASES = [
    Case(
        NAME,
        "an interpreter that starts and ends",
        startup,
        "most of the starts, and those that import asyncio",
        quick_seconds=3,
    )
]
