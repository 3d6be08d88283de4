"""The benchmarks say what they measured: the arithmetic, the budgets, the tables, the programs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"

pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="the tests run without the source tree")


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of tests/bench, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run(*arguments):
    command = [sys.executable, str(BENCH / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_each_turn_is_divided_by_the_mean_of_those_around_it(bench):
    harness = bench("harness")
    off, on = iter([1.0, 3.0, 1.0]), iter([4.0, 8.0])
    pairs = harness.Pairs()
    harness.take_turns(off.__next__, on.__next__, 2, pairs)
    assert pairs.ratios == [2.0, 4.0]
    assert pairs.more == [2.0, 6.0]
    assert pairs.medians == [3.0]


def test_a_pair_of_one_turn_each(bench):
    harness = bench("harness")
    pairs = harness.Pairs()
    harness.take_turns(lambda: 2.0, lambda: 3.0, 1, pairs)
    assert (pairs.ratios, pairs.off, pairs.on) == ([1.5], [2.0], [3.0])


@pytest.mark.parametrize(
    ("value", "low", "high", "options", "verdict"),
    [
        (1.07, 1.0, 1.2, {}, ""),
        (1.07, 1.0, 1.2, {"budget": 1.08}, "ok"),
        (1.09, 1.0, 1.2, {"budget": 1.08}, "over"),
        (1.01, 1.0, 1.2, {"budget": 1.0, "within_spread": True}, "ok"),
        (1.02, 1.01, 1.2, {"budget": 1.0, "within_spread": True}, "over"),
        (0.995, 0.9, 1.1, {"budget": 0.99, "at_least": True}, "ok"),
        (0.98, 0.9, 1.1, {"budget": 0.99, "at_least": True}, "over"),
    ],
)
def test_the_verdict_of_a_budget(bench, value, low, high, options, verdict):
    figures = bench("figures")
    figure = figures.Figure("task", "a", "ratio", value, low, high, 7, **options)
    assert figure.verdict == verdict
    assert figure.text().endswith(f": {verdict}" if verdict else "7 pairs)")


def test_a_dearer_way_to_make_tasks_shows(bench):
    """Fresh processes, and a peer that takes a stack in Python for each task."""
    harness = bench("harness")
    arguments = {"depth": 20, "live": 10}
    off, on = (
        harness.Side("work_tasks:one_by_one", variant, arguments)
        for variant in ("off", "task factory, extract_stack")
    )
    effort = harness.Effort(turn=0.002, turns=3, least=1, seconds=0)
    pairs = harness.compare(off, on, effort)
    assert len(pairs.ratios) == 3
    assert min(pairs.ratios) > 2


def test_a_variant_that_cannot_be_had_says_why(bench):
    harness = bench("harness")
    side = harness.Side("work_plain:computation", "no such variant")
    with pytest.raises(RuntimeError, match="no such variant"):
        side.start()


def test_instructions_are_compared_with_their_budget(bench):
    instructions = bench("instructions")
    budget = {"insert": 100.0, "remove": 100.0, "gone": 1.0}
    counts = {"insert": 103.0, "remove": 90.0, "new": 5.0}
    wrong, gains = instructions.compare(counts, budget, 0.02)
    assert wrong == [
        "gone has a budget and is not counted",
        "insert takes 103.0 instructions, +3.0% of 100.0",
        "new takes 5.0 instructions and has no budget",
    ]
    assert gains == [
        "remove takes 90.0 instructions, -10.0% of 100.0: record it, so that the gain is kept"
    ]
    assert instructions.compare({"insert": 102.0}, {"insert": 100.0}, 0.02) == ([], [])


def test_another_compiler_has_the_wider_margin_and_another_machine_none(bench):
    instructions = bench("instructions")
    budget = {"margin": {"same": 0.02, "other": 0.25}, "x86_64 gcc-12": {}}
    assert instructions.choose(budget, "x86_64 gcc-12") == ("x86_64 gcc-12", 0.02)
    assert instructions.choose(budget, "x86_64 clang-19") == ("x86_64 gcc-12", 0.25)
    assert instructions.choose(budget, "aarch64 gcc-12") == (None, 0.0)


def write_run(folder, python, value):
    figure = {"case": "task", "name": "one", "unit": "ratio", "value": value, "low": value,
              "high": value, "count": 7, "budget": 1.08, "at_least": False,
              "within_spread": False, "note": ""}  # fmt: skip
    absent = {"case": "task", "name": "peer: pyleak", "absent": "not installed"}
    found = {"python": python, "leakguard": "0.1", "machine": "m", "processors": 2,
             "time": "2026-01-01T00:00:00Z", "quick": False,
             "figures": [figure, absent]}  # fmt: skip
    path = folder / f"{python}.json"
    path.write_text(json.dumps(found))
    return str(path)


def test_the_tables_have_a_column_for_each_run(tmp_path):
    files = [write_run(tmp_path, "3.13.0", 1.1), write_run(tmp_path, "3.9.1", 1.05)]
    document = tmp_path / "performance.md"
    document.write_text(
        "before\n<!-- figures: written by tests/bench/run.py --markdown -->\nthe former\n"
        "<!-- end of figures -->\nafter\n"
    )
    done = run("--markdown", *files, "--into", str(document))
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("-->\nafter\n")
    assert "the former" not in text
    assert "| case | figure | 3.9.1 | 3.13.0 | budget |" in text
    assert "| task | one | 1.050 (1.050 to 1.050) | **1.100** (1.100 to 1.100) | ≤ 1.08 |" in text
    assert "| pyleak | not here | not here |" in text


def test_the_cases_are_listed_and_a_wrong_one_is_refused():
    listed = [line.split()[0] for line in run("--list").stdout.splitlines()]
    assert listed == [
        "task", "taskgroup", "gather", "thread", "audit", "idle", "check", "limits", "blocking",
        "diagnosis", "waiting-forever", "memory", "startup", "pytest", "http",
    ]  # fmt: skip
    done = run("tasks")
    assert done.returncode == 2
    assert "no case is called 'tasks'; there are task, taskgroup," in done.stderr
