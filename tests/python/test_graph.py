"""The await graph: who waits for whom, by each of asyncio's means; the drawing of it."""

import json
import shutil
import subprocess

import pytest

from .causes import line_of


def names(facts):
    return sorted(one["name"] for one in facts)


@pytest.mark.parametrize(
    ("function", "by", "count"),
    [
        ("awaits", None, 1),
        ("gathers", ["gather"], 2),
        ("gathers_nested", ["gather"], 2),
        ("shields", ["shield"], 1),
        ("waits", ["wait"], 2),
        ("completes", ["as_completed"], 2),
        ("groups", ["TaskGroup"], 1),
        ("times_out", None, 1),
        ("generates", None, 1),
    ],
)
def test_who_awaits_whom(function, by, count, left_by):
    report = left_by("graph", function)
    waiter = next(leak for leak in report if leak.name == "waiter")
    leaves = [leak for leak in report if leak.function == "leaf"]
    assert len(report) == count + 1 == len(leaves) + 1
    assert waiter.facts.get("awaits_by") == by
    assert sorted(one["serial"] for one in waiter.facts["awaits"]) == [
        leaf.serial for leaf in leaves
    ]
    for leaf in leaves:
        assert names(leaf.facts["awaited_by"]) == ["waiter"]
        assert leaf.facts["waits_in"] == "sleep"
        assert "awaits" not in leaf.facts


def test_wait_for(left_by):
    """Up to 3.11 it waits by a future of its own."""
    report = left_by("graph", "waits_for")
    waiter = next(leak for leak in report if leak.name == "waiter")
    assert names(waiter.facts["awaits"]) == ["leaf"]


def test_across_loops(left_by):
    report = left_by("graph", "other_loop")
    waiter = next(leak for leak in report if leak.name == "waiter")
    leaf = next(leak for leak in report if leak.function == "leaf")
    assert [one["serial"] for one in waiter.facts["awaits"]] == [leaf.serial]
    assert waiter.facts["awaits_by"] == ["run_coroutine_threadsafe"]
    assert names(leaf.facts["awaited_by"]) == ["waiter"]


def test_a_future_without_a_task_awaits_nobody(left_by):
    (waiter,) = left_by("graph", "plain_future")
    assert "awaits" not in waiter.facts


def test_current_stack_is_the_whole_chain(left_by):
    report = left_by("graph", "generates")
    waiter = next(leak for leak in report if leak.name == "waiter")
    assert [frame.name for frame in waiter.current_stack] == [
        "in_generators",
        "numbers",
        "Awaitable.__await__",
    ]
    assert [frame.lineno for frame in waiter.current_stack[1:]] == [
        line_of("graph", "deep"),
        line_of("graph", "deeper"),
    ]


def test_report_graph(left_by):
    report = left_by("graph", "gathers")
    graph = report.graph()
    by_name = {node["name"]: node for node in graph["nodes"]}
    waiter = by_name["waiter"]
    assert (waiter["kind"], waiter["function"], waiter["cause"]) == (
        "task",
        "by_gather",
        "still-running",
    )
    edges = {(edge["from"], edge["to"], edge["kind"], edge["by"]) for edge in graph["edges"]}
    leaves = [by_name["leaf 0"]["serial"], by_name["leaf 1"]["serial"]]
    assert {edge for edge in edges if edge[2] == "awaits"} == {
        (waiter["serial"], leaf, "awaits", "gather") for leaf in leaves
    }
    made = {edge[1] for edge in edges if edge[2] == "created"}
    assert made == {waiter["serial"], *leaves}
    assert json.loads(json.dumps(graph)) == graph


def test_a_lock_in_the_graph(left_by):
    report = left_by("deadlocks", "two_locks")
    one, other = (leak.serial for leak in report)
    locks = [edge for edge in report.graph()["edges"] if edge["kind"] == "lock"]
    assert sorted((edge["from"], edge["to"]) for edge in locks) == [(one, other), (other, one)]


def test_show_as_dot(left_by, run, tmp_path):
    report = left_by("deadlocks", "two_locks")
    file = tmp_path / "report.json"
    file.write_text(report.to_json(), encoding="utf-8")
    found = run("-m", "leakguard", "show", file, "--format", "dot")
    assert found.returncode == 0
    lines = found.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("digraph leakguard {", "}")
    one, other = (leak.serial for leak in report)
    assert f'  p1_{one} -> p1_{other} [label="lock", color=red];' in lines
    assert f'  p1_{other} -> p1_{one} [label="lock", color=red];' in lines
    if shutil.which("dot"):
        drawn = subprocess.run(
            ["dot", "-Tsvg"], input=found.stdout, capture_output=True, text=True, check=True
        )
        assert "task a" in drawn.stdout
