"""What cannot be looked into has no cause, and breaks no report; closed loops."""

import asyncio

import pytest

import leakguard
from leakguard import Report, _awaits, guard

from .causes import CAUSES, line_of, only


def test_a_task_whose_own_code_raises_is_reported_without_a_cause(left_by):
    report = left_by("odd", "raising", grace=0.05)
    causes = {leak.site.lineno: leak.cause for leak in report}
    assert causes == {line_of("odd", "raises"): None, line_of("odd", "ordinary"): "orphaned"}


def test_a_block_of_mocks(left_by):
    assert only(left_by("odd", "with_mocks"), "odd", "holds mocks").cause == "still-running"


def test_a_pure_python_task(left_by):
    leak = only(left_by("odd", "pure"), "odd", "pure")
    assert leak.cause == "still-running"
    assert leak.facts["waits_in"] == "sleep"


def test_a_task_that_runs_in_another_thread(left_by):
    report = left_by("odd", "running_elsewhere", grace=0.1)
    (task,) = (leak for leak in report if leak.kind == "task")
    assert (task.state, task.cause) == ("running", "still-running")


def test_loop_closed(left_by):
    leak = only(left_by("odd", "closed_loop"), "odd", "on a loop that is closed")
    assert (leak.state, leak.cause) == ("abandoned", "loop-closed")
    assert leak.why == "left pending when its loop was closed"


def test_loop_open(left_by):
    leak = only(left_by("odd", "open_loop"), "odd", "on a loop that is open")
    assert leak.cause == "still-running"


def test_with_uvloop(run):
    pytest.importorskip("uvloop")
    text = (
        "import asyncio, sys, uvloop; sys.argv[1:] = ['deadlocks', 'two_locks'];"
        "asyncio.events.new_event_loop = uvloop.new_event_loop; exec(open('run.py').read())"
    )
    found = run("-c", text, cwd=CAUSES)
    assert {leak.cause for leak in Report.from_json(found.stdout)} == {"deadlock"}


def test_a_failing_diagnosis_leaves_the_leak(monkeypatch):
    import threading

    from leakguard import _causes

    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(_causes.Diagnosis, "of", fail)
    stop = threading.Event()
    with guard(action=lambda report: None, grace=0) as block:
        threading.Thread(target=stop.wait).start()
    stop.set()
    (leak,) = block.report
    assert (leak.cause, leak.why) == (None, "")


def test_what_another_threads_check_holds_wakes_nobody():
    async def main():
        point = leakguard.checkpoint()
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        held = _awaits.Waiting(task)
        (leak,) = point.leaks()
        assert len(held.leaves) == 1
        return leak.cause

    assert asyncio.run(main()) == "waiting-forever"


def test_a_clean_check_loads_no_diagnosis(run):
    text = (
        "import asyncio, sys, leakguard\n"
        "async def main():\n"
        "    async with leakguard.guard():\n"
        "        await asyncio.create_task(asyncio.sleep(0))\n"
        "asyncio.run(main())\n"
        "print([name for name in ('_causes', '_awaits', '_source', '_deadlocks')"
        " if 'leakguard.' + name in sys.modules])\n"
    )
    found = run("-c", text)
    assert (found.stdout, found.stderr) == ("[]\n", "")
