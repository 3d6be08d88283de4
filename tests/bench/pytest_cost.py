"""What the pytest plugin costs: 2,000 trivial sync and 500 trivial async tests, run with every test
checked, with the plugin unasked, and without it, interleaved.

Prints the time a test took more than without the plugin, and the ratio of the whole runs: medians
over the rounds, and their spread.

    python tests/bench/pytest_cost.py            # 7 rounds
    python tests/bench/pytest_cost.py --rounds 3
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SYNC = 2_000
ASYNC = 500

# Between the first test's set-up and the last one's teardown: no start-up, no collection.
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

TESTS = {
    "sync": f"""
import pytest

@pytest.mark.parametrize("number", range({SYNC}))
def test_nothing(number):
    pass
""",
    "async": f"""
import pytest

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range({ASYNC}))
async def test_nothing(number):
    pass
""",
}
COUNTS = {"sync": SYNC, "async": ASYNC}
WAYS = {
    "checked": ("-p", "leakguard", "--leakguard"),
    "unasked": ("-p", "leakguard"),
    "without": ("-p", "no:leakguard"),
}


def run(folder, name, way):
    """Seconds for the tests of one file."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider",
        "-p", "pytest_asyncio.plugin", *WAYS[way], f"test_{name}.py",
    ]  # fmt: skip
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    [line] = [line for line in done.stdout.splitlines() if "runtestloop" in line]
    return float(line.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"CPython {sys.version.split()[0]}; {rounds} rounds, interleaved; median (least to most)")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "conftest.py").write_text(CONFTEST, encoding="utf-8")
        Path(folder, "pytest.ini").write_text("[pytest]\nasyncio_mode = strict\n", encoding="utf-8")
        for name, text in TESTS.items():
            Path(folder, f"test_{name}.py").write_text(text, encoding="utf-8")
        for name, count in COUNTS.items():
            taken = [{way: run(folder, name, way) for way in WAYS} for _ in range(rounds)]
            for way in ("checked", "unasked"):
                more = [(it[way] - it["without"]) / count * 1e6 for it in taken]
                ratio = statistics.median(it[way] / it["without"] for it in taken)
                print(
                    f"{count:5,} {name:5} tests {way}: {statistics.median(more):+5.0f} µs a test "
                    f"({min(more):+.0f} to {max(more):+.0f}), ratio {ratio:.3f}"
                )


if __name__ == "__main__":
    main()
