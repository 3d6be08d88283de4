"""Why a task or thread was left: each cause in a program that shows it, and near misses."""

import pytest

from .causes import CAUSES, line_of, only

# orphaned


def test_orphaned(left_by):
    leak = only(left_by("creators", "orphaned"), "creators", "leak")
    assert leak.cause == "orphaned"
    assert leak.facts["causes"] == ["orphaned"]
    name = leak.creator.name
    assert (
        leak.why == f"its creator, task {name!r} (start), has ended, and nobody holds or awaits it"
    )


def test_orphaned_though_its_own_frames_hold_it(left_by):
    report = left_by("creators", "orphaned_that_holds_itself")
    assert only(report, "creators", "leak of its own timeout").cause == "orphaned"


def test_orphaned_by_a_creator_that_failed(left_by):
    leak = only(left_by("creators", "orphaned_by_an_error"), "creators", "leak of one that failed")
    assert leak.cause == "orphaned"
    assert "(start_and_fail), has failed, and nobody" in leak.why


def test_held_by_another_is_not_orphaned(left_by):
    leak = only(left_by("creators", "held_by_another"), "creators", "held")
    assert (leak.cause, leak.why) == ("still-running", "")


def test_of_a_creator_that_lives_is_not_orphaned(left_by):
    leak = only(left_by("creators", "creator_lives"), "creators", "of a creator that lives")
    assert leak.cause == "still-running"


# cancelled-parent


def test_cancelled_parent(left_by):
    leak = only(left_by("creators", "cancelled_parent"), "creators", "left by the cancelled")
    assert leak.cause == "cancelled-parent"
    assert leak.facts["causes"] == ["cancelled-parent", "orphaned"]
    assert leak.why == (
        "its creator, task 'parent' (start_and_wait), was cancelled and left it running"
    )


def test_taken_over_from_a_cancelled_creator(left_by):
    report = left_by("creators", "cancelled_parent_of_an_awaited_one")
    assert {leak.site.lineno: leak.cause for leak in report} == {
        line_of("creators", "taken over"): "still-running",
        line_of("creators", "takes over"): "still-running",
    }


# swallowed-cancel and winding-down


@pytest.mark.parametrize(
    ("function", "comment", "name"),
    [
        ("swallowed", "catches", "swallow"),
        ("swallowed_in_the_handler", "handles", "in_the_handler"),
        ("swallowed_further_out", "catches all", "outer"),
    ],
)
def test_swallowed_cancel(function, comment, name, left_by):
    (leak,) = left_by("cancelled", function)
    assert leak.cause == "swallowed-cancel"
    where = f"cancelled.py:{line_of('cancelled', comment)} in {name}"
    assert leak.why == f"it was cancelled, and caught that at {where}"
    assert leak.facts["handler"] == where


def test_swallowed_cancel_by_a_call_that_has_returned(left_by):
    (leak,) = left_by("cancelled", "swallowed_by_a_call")
    assert leak.cause == "swallowed-cancel"
    assert leak.why == "it was cancelled, and a call in it caught that"


@pytest.mark.parametrize(
    ("function", "comment", "name"),
    [
        ("in_finally", "cleans up", "clean_up"),
        ("in_a_handler_that_raises", "will raise again", "raise_again"),
    ],
)
def test_winding_down(function, comment, name, left_by):
    (leak,) = left_by("cancelled", function)
    assert leak.cause == "winding-down"
    where = f"cancelled.py:{line_of('cancelled', comment)} in {name}"
    assert leak.why == f"it was cancelled, and cleans up at {where}"


def test_winding_down_in_the_exit_of_a_block(left_by):
    (leak,) = left_by("cancelled", "in_the_exit_of_a_block")
    assert leak.cause == "winding-down"


def test_winding_down_before_the_cancellation_was_delivered(left_by):
    (leak,) = left_by("cancelled", "never_begun", grace=0)
    assert leak.cause == "winding-down"
    assert leak.why == "it was cancelled, and has not run since"


def test_uncancelled_has_swallowed_nothing(left_by):
    (leak,) = left_by("cancelled", "uncancelled")
    assert leak.cause == "still-running"


# sibling-survived


def test_survived_a_gather(left_by):
    leak = only(left_by("siblings", "survived_a_gather"), "siblings", "gathers")
    assert (leak.function, leak.cause) == ("forever", "sibling-survived")
    assert leak.why == "the gather() that it was given to ended by ValueError, and left it running"


def test_still_gathered(left_by):
    leak = only(left_by("siblings", "still_gathered"), "siblings", "is gathered")
    assert leak.cause == "still-running"


@pytest.mark.parametrize(
    ("function", "comment", "call", "distance"),
    [
        ("survived_a_wait", "reads", "wait() at siblings.py:{} in session", 2),
        ("survived_a_timeout", "of a list", "wait() at siblings.py:{} in session_with_timeout", -2),
        ("survived_a_shield", "shielded", "wait_for() at siblings.py:{} in Client.call", 2),
    ],
    ids=["wait", "timeout", "shield"],
)
def test_survived_a_wait(function, comment, call, distance, left_by):
    leak = only(left_by("siblings", function), "siblings", comment)
    line = line_of("siblings", comment) + distance
    assert (leak.function, leak.cause) == ("forever", "sibling-survived")
    assert leak.why == f"the {call.format(line)} ended, and left it running"
    assert leak.facts["wait"] == {"file": str(CAUSES / "siblings.py"), "line": line}


@pytest.mark.parametrize(
    "function", ["still_waited_for", "not_yet_waited_for", "not_given_to_the_wait"]
)
def test_no_wait_has_ended(function, left_by):
    assert {leak.cause for leak in left_by("siblings", function)} == {"still-running"}


# deadlock

BY_LOCKS = "task 'a' waits for a Lock held by task 'b', task 'b' waits for a Lock held by task 'a'"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("two_tasks", "task 'a' waits for task 'b', task 'b' waits for task 'a'"),
        ("two_locks", BY_LOCKS),
        ("two_locks_in_managers", BY_LOCKS),
        (
            "task_and_lock",
            "task 'holder' waits for task 'wants', "
            "task 'wants' waits for a Lock held by task 'holder'",
        ),
        ("itself", "task 'a' waits for a Lock held by itself"),
        (
            "two_semaphores",
            "task 'a' waits for a BoundedSemaphore held by task 'b', "
            "task 'b' waits for a BoundedSemaphore held by task 'a'",
        ),
        ("two_conditions", BY_LOCKS),
        ("through_a_gather", "task 'a' waits for task 'b', task 'b' waits for task 'a'"),
    ],
)
def test_deadlock(function, sentence, left_by):
    report = left_by("deadlocks", function)
    assert {leak.cause for leak in report} == {"deadlock"}
    first = report[0]
    assert first.why == f"deadlock: {sentence}"
    assert [one["name"] for one in first.facts["cycle"]] == [leak.name for leak in report]
    assert [one["serial"] for one in first.facts["cycle"]] == [leak.serial for leak in report]


@pytest.mark.parametrize(
    "function",
    ["in_order", "semaphores_with_room", "first_of_two", "with_timeout"],
)
def test_no_deadlock(function, left_by):
    report = left_by("deadlocks", function)
    assert len(report) >= 2
    assert {leak.cause for leak in report} == {"still-running"}


def test_waiting_for_a_deadlock_is_none(left_by):
    causes = {leak.name: leak.cause for leak in left_by("deadlocks", "behind_a_cycle")}
    assert causes == {"a": "deadlock", "b": "deadlock", "c": "waiting-forever"}


def test_no_deadlock_of_a_condition_and_a_lock(left_by):
    assert {leak.cause for leak in left_by("deadlocks", "condition_and_lock")} == {
        "waiting-forever"
    }


def test_a_long_cycle_is_cut_short(left_by):
    report = left_by("deadlocks", "a_ring")
    assert [leak.cause for leak in report] == ["deadlock"] * 1000
    assert report[999].why == (
        "deadlock: task 't999' waits for task 't0', task 't0' waits for task 't1', "
        "task 't1' waits for 997 more, and the last of them for task 't999'"
    )
    assert len(report[0].facts["cycle"]) == 20


def test_deadlock_across_loops(left_by):
    report = left_by("deadlocks", "two_loops")
    causes = {leak.function: leak.cause for leak in report}
    assert causes == {
        "call_other_loop": "deadlock",
        "call_back": "deadlock",
        "wait_for_it": "deadlock",
        "BaseEventLoop.run_forever": "still-running",
    }
    by = {leak.function: leak.facts.get("awaits_by") for leak in report}
    assert by["call_other_loop"] == by["call_back"] == ["run_coroutine_threadsafe"]


# blocked-in-executor


def test_blocked_in_executor(left_by):
    report = left_by("executors", "in_to_thread")
    task, thread = report
    where = f"executors.py:{line_of('executors', 'blocks')} in block"
    assert (task.kind, task.cause) == ("task", "blocked-in-executor")
    assert task.why == f"it waits for block in thread 'asyncio_0', now at {where}"
    assert task.facts["executor"] == {"thread": "asyncio_0", "function": "block", "at": where}
    assert (thread.kind, thread.cause) == ("thread", "blocked-in-executor")
    assert thread.why == f"nothing can cancel its call of block, now at {where}"


def test_blocked_in_executor_before_the_call_has_begun(left_by):
    report = left_by("executors", "queued")
    whys = {leak.site.lineno: leak.why for leak in report if leak.kind == "task"}
    where = f"executors.py:{line_of('executors', 'blocks')} in block"
    assert whys == {
        line_of("executors", "has begun"): f"it waits for block in thread 'pool_0', now at {where}",
        line_of("executors", "is queued"): (
            "it waits for a call that its executor has not begun: all its workers are busy"
        ),
    }
    assert {leak.cause for leak in report if leak.kind == "task"} == {"blocked-in-executor"}


def test_blocked_in_a_process(left_by):
    report = left_by("executors", "process_pool")
    (task,) = (leak for leak in report if leak.kind == "task")
    assert task.cause == "blocked-in-executor"
    assert task.why == "it waits for a call in a process of an executor"


def test_a_future_of_no_executor(left_by):
    leak = only(left_by("executors", "no_executor"), "executors", "of no executor")
    assert leak.cause == "still-running"


# executor-not-shut-down, held-exit


def test_executor_never_shut_down(left_by):
    leak = only(left_by("executors", "never_shut_down"), "executors", "never shut down")
    assert (leak.cause, leak.why) == (
        "executor-not-shut-down",
        "its executor was never shut down",
    )


def test_executor_collected(left_by):
    report = left_by("executors", "collected")
    (leak,) = report
    assert (leak.cause, leak.why) == ("executor-not-shut-down", "its executor was collected")


def test_executor_shut_down_is_not_the_cause(left_by):
    leak = only(left_by("executors", "shut_down_while_busy"), "executors", "shut down")
    assert leak.cause == "blocked-in-executor"
    assert leak.facts["causes"] == ["blocked-in-executor", "held-exit"]


def test_held_exit(left_by):
    leak = only(left_by("executors", "not_a_daemon"), "executors", "holds the exit")
    assert (leak.cause, leak.why) == (
        "held-exit",
        "it is not a daemon: Python waits for it before it exits",
    )


def test_a_daemon_does_not_hold_the_exit(left_by):
    leak = only(left_by("executors", "daemon"), "executors", "does not")
    assert (leak.cause, leak.why) == ("still-running", "")


# waiting-forever

FOREVER = "it waits for ever: nothing that can still run has a way to what it waits for"


@pytest.mark.parametrize(
    ("function", "comment", "causes"),
    [
        ("own_event", "own event", ["waiting-forever"]),
        ("held", "held", ["waiting-forever"]),
        ("full_queue", "puts", ["waiting-forever"]),
    ],
)
def test_waiting_forever(function, comment, causes, left_by):
    leak = only(left_by("waiting", function), "waiting", comment)
    assert (leak.cause, leak.why) == ("waiting-forever", FOREVER)
    assert leak.facts["causes"] == causes


@pytest.mark.parametrize(("function", "count"), [("each_other", 2), ("chain", 3)])
def test_waiting_forever_for_one_another(function, count, left_by):
    report = left_by("waiting", function)
    assert [leak.cause for leak in report] == ["waiting-forever"] * count


def test_waiting_forever_at_the_end_of_a_run(left_by):
    (leak,) = left_by("waiting", "at_the_end_of_run")
    assert (leak.state, leak.cause, leak.why) == ("abandoned", "waiting-forever", FOREVER)


@pytest.mark.parametrize(
    "function", ["global_event", "sleeps", "limited", "returned_event", "set_later"]
)
def test_not_waiting_forever(function, left_by):
    causes = {leak.name: leak.cause for leak in left_by("waiting", function)}
    assert causes["it"] == "still-running"


def test_waiting_forever_without_time_says_so(left_by, monkeypatch):
    monkeypatch.setenv("TEST_BUDGET", "0")
    report = left_by("waiting", "ten_thousand")
    assert len(report) == 10_000
    assert report[0].cause == "still-running"
    assert report[0].facts["reachability"] == "gave up after 0.0 s"
