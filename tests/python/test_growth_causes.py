"""Causes that several looks tell: what grows from checkpoint to checkpoint, what still moves."""

import pytest

from leakguard import Report

from .causes import CAUSES, line_of, only


def test_accumulating(left_by):
    report = left_by("growth", "tasks")
    assert len(report) == 3
    assert {leak.site.lineno for leak in report} == {line_of("growth", "one more each cycle")}
    assert {leak.cause for leak in report} == {"accumulating"}
    assert {leak.why for leak in report} == {"there are more at each checkpoint: 1 → 2 → 3"}
    assert report[0].facts["growth"] == [1, 2, 3]


def test_accumulating_threads_from_snapshot_to_snapshot(left_by):
    report = left_by("growth", "threads")
    assert {leak.site.lineno for leak in report} == {line_of("growth", "a thread more each cycle")}
    assert [(leak.kind, leak.cause) for leak in report] == [("thread", "accumulating")] * 3


def test_accumulating_in_a_stable_cycle(run):
    found = run(CAUSES / "run.py", "growth", "stable", cwd=CAUSES)
    (leak,) = Report.from_json(found.stdout.splitlines()[0])
    assert (leak.cause, leak.facts["growth"]) == ("accumulating", [1, 2, 3])
    assert leak.why == "there are more at each checkpoint: 1 → 2 → 3"


@pytest.mark.parametrize("function", ["replaced", "too_few"])
def test_not_accumulating(function, left_by):
    causes = {leak.cause for leak in left_by("growth", function)}
    assert causes == {"still-running"}


def test_winding_down_while_it_still_gets_on(left_by):
    leak = only(left_by("growth", "getting_on", grace=1), "growth", "gets on")
    assert leak.cause == "winding-down"
    line = line_of("growth", "and further")
    assert leak.why == (
        f"it was still going on: at line {line - 1}, then at growth.py:{line} in step_by_step"
    )


@pytest.mark.parametrize(
    ("function", "comment"), [("ticking", "ticks"), ("ticking_in_a_call", "ticks in a call")]
)
def test_a_ticker_does_not_get_on(function, comment, left_by):
    leak = only(left_by("growth", function, grace=0.2), "growth", comment)
    assert leak.cause == "still-running"
