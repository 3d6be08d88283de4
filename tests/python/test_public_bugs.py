"""Leaks that were reported in public, rebuilt small: each gets the cause that fits the report."""

import json

import pytest

from .conftest import PROGRAMS

BUGS = PROGRAMS / "public_bugs"


def leak_line(program):
    lines = (BUGS / program).read_text(encoding="utf-8").splitlines()
    (number,) = [at for at, line in enumerate(lines, 1) if line.endswith("  # leak")]
    return number


@pytest.fixture
def leaks(run, tmp_path):
    """The leaks that a program leaves, by LEAKGUARD=exit, and its exit status."""

    def run_bug(program, *arguments):
        report = tmp_path / "report.jsonl"
        report.unlink(missing_ok=True)
        found = run(
            BUGS / program,
            *arguments,
            cwd=BUGS,
            LEAKGUARD="exit",
            LEAKGUARD_GRACE="0.1",
            LEAKGUARD_REPORT=str(report),
        )
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        left = [one for one in map(json.loads, lines) if not one.get("note")]
        return left, found.returncode

    return run_bug


@pytest.fixture
def printed(run):
    """The leaks that a program prints which checks itself."""

    def run_bug(program, *arguments):
        found = run(BUGS / program, *arguments, cwd=BUGS)
        assert found.stderr == ""
        return json.loads(found.stdout)

    return run_bug


def check(left, program, cause, why):
    assert {leak["site"]["line"] for leak in left} == {leak_line(program)}
    assert {leak["cause"] for leak in left} == {cause}
    assert {why in leak["why"] for leak in left} == {True}


def test_database_connection(leaks):
    program = "database_connection.py"
    left, status = leaks(program)
    assert (len(left), status) == (1, 23)
    check(left, program, "held-exit", "it is not a daemon: Python waits for it before it exits")
    assert leaks(program, "close") == ([], 0)


def test_reconnecting_client(printed):
    program = "reconnecting_client.py"
    left = printed(program)
    assert len(left) == 2
    check(left, program, "sibling-survived", "ended, and left it running")
    assert left[0]["why"].startswith(
        "live resources created here at the call before and now: 1 → 2; the wait() at "
    )
    assert left[1]["facts"]["growth"] == [1, 2, 3]
    assert "accumulating" in left[1]["facts"]["causes"]
    assert printed(program, "tidy") == []


def test_heartbeat(printed):
    program = "heartbeat.py"
    left = printed(program)
    assert len(left) == 3
    check(left, program, "accumulating", "there are more at each checkpoint: 1 → 2 → 3")
    assert left[0]["facts"]["causes"] == ["accumulating", "orphaned"]
    assert printed(program, "good") == []


def test_streaming_response(leaks):
    program = "streaming_response.py"
    left, status = leaks(program)
    assert (len(left), status) == (1, 23)
    # The end of a loop does not mark: nobody asked for that.
    check(left, program, "orphaned", "(Middleware.respond), has ended, and nobody holds")
    assert left[0]["facts"]["waits_in"] == "Queue.put"
    assert leaks(program, "read") == ([], 0)


def test_handler_outlives_server(leaks):
    program = "handler_outlives_server.py"
    left, status = leaks(program)
    assert (len(left), status) == (1, 23)
    check(left, program, "cancelled-parent", "(Server.serve), was cancelled and left it running")
    assert leaks(program, "all") == ([], 0)


def test_metric_reader(printed):
    program = "metric_reader.py"
    left = printed(program)
    assert len(left) == 3
    check(left, program, "accumulating", "there are more at each checkpoint: 1 → 2 → 3")
    assert printed(program, "tidy") == []
