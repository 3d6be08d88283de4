"""cpython_tests.py [PYTHON...]: CPython's own tests, plain and under LEAKGUARD=1.

Each interpreter gets an environment with leakguard's wheel, and runs the modules below twice, the
second time with LEAKGUARD=1, native threads too, and the report in a file. What differs is printed
and is a failure. Without arguments: every CPython 3.11 to 3.13 of this machine that has its test
package (pyenv's). The output of each run is in build/cpython.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from matrix import ON_MACHINE, StepError, describe, on_machine

TREE = Path(__file__).resolve().parents[2]
WORK = TREE / "build/cpython"
MODULES = (
    "test_asyncio",
    "test_threading",
    "test_thread",
    "test_concurrent_futures",
    "test_fork1",
    "test_subprocess",
    "test_signal",
)
KINDS = "task,thread,native_thread"
SECONDS = 1800  # for one module, once


def outcomes(path: Path) -> dict[str, str]:
    """How each test ended, by its name."""
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        ends = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        found[str(case.get("name"))] = ", ".join(ends) or "passed"
    return found


def run(python: str, module: str, folder: Path, way: str, **variables: str) -> dict[str, str]:
    """Runs one module; its output is in MODULE.WAY.log."""
    ours = ("LEAKGUARD", "PY")
    environment = {name: it for name, it in os.environ.items() if not name.startswith(ours)}
    junit = folder / f"{module}.{way}.xml"
    with (folder / f"{module}.{way}.log").open("w") as log:
        subprocess.run(
            [python, "-m", "test", "--timeout", "600", "--junit-xml", str(junit), module],
            env={**environment, **variables},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    return outcomes(junit)


def examine(python: str, version: str) -> bool:
    folder = WORK / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    venv = folder / "venv"
    subprocess.run([python, "-m", "venv", venv], check=True)
    own = str(venv / "bin/python")
    pip = [own, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, str(TREE)], check=True, stdout=subprocess.DEVNULL)
    same = True
    for module in MODULES:
        plain = run(own, module, folder, "plain")
        report = str(folder / f"{module}.jsonl")
        settings = {"LEAKGUARD": "1", "LEAKGUARD_KINDS": KINDS, "LEAKGUARD_REPORT": report}
        watched = run(own, module, folder, "watched", **settings)
        changed = [
            f"{test}: {plain.get(test, 'absent')} -> {watched.get(test, 'absent')}"
            for test in sorted({*plain, *watched})
            if plain.get(test) != watched.get(test)
        ]
        print(
            f"[{version}] {module}: {len(plain)} tests, {len(changed)} ended otherwise", flush=True
        )
        for line in changed:
            print(f"    {line}")
        same = same and bool(plain) and not changed
    return same


def interpreters(given: list[str]) -> list[tuple[str, str]]:
    """(path, version) of those named, else of this machine's that have a test package."""
    found = []
    for name in given or ON_MACHINE:
        try:
            python, version = (name, describe([name])) if given else on_machine(name)
        except StepError as error:
            print(f"[{name}] left out: {error}")
            continue
        tests = [python, "-c", "import test.test_asyncio"]
        if version is None or subprocess.run(tests, capture_output=True, check=False).returncode:
            print(f"[{name}] left out: no CPython with its test package")
            continue
        found.append((python, version))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[2].partition(".")[0])
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    chosen = interpreters(parser.parse_args().pythons)
    results = [examine(python, version) for python, version in chosen]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
