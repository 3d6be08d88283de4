"""Checkpoints, snapshots and sites that must not grow."""

import asyncio
import threading

import pytest

import leakguard
from leakguard import LeakError, Report, _tracking

from .conftest import line_of


async def sleeper():
    await asyncio.sleep(3600)


def start(event, name="worker"):
    thread = threading.Thread(target=event.wait, name=name)
    thread.start()
    return thread


def test_a_checkpoint_while_another_thread_installs_tracks_the_same(monkeypatch):
    track_tasks = _tracking._track_tasks
    points = []
    taken = threading.Event()

    def take():
        points.append(leakguard.checkpoint())
        taken.set()

    thread = threading.Thread(target=take)

    def slow():
        thread.start()
        taken.wait(0.05)
        track_tasks()

    leakguard.uninstall()
    monkeypatch.setattr(_tracking, "_track_tasks", slow)
    leakguard.install()
    thread.join()
    assert list(points[0].leaks(kinds="task")) == []


def test_leaks_looks_without_raising_and_assert_clean_raises_each_time(release):
    point = leakguard.checkpoint("connected")
    start(release)
    assert [leak.name for leak in point.leaks()] == ["worker"]
    for _ in range(2):
        with pytest.raises(LeakError) as caught:
            point.assert_clean(grace=0.01)
        assert str(caught.value).startswith("leakguard: 1 leak since checkpoint 'connected' (1 thr")


def test_what_was_born_before_the_checkpoint_is_not_its_leak(release):
    leakguard.install()
    start(release)
    leakguard.checkpoint().assert_clean(grace=0)


def test_assert_clean_async_yields_to_what_it_waits_for():
    async def main():
        point = leakguard.checkpoint()
        task = asyncio.create_task(asyncio.sleep(0.02))
        await point.assert_clean_async()
        return task.done()

    assert asyncio.run(main()) is True


def test_a_sync_assertion_in_a_running_loop_names_the_async_form():
    async def main():
        point = leakguard.checkpoint()
        with pytest.raises(RuntimeError, match="assert_clean_async"):
            point.assert_clean()
        point.assert_clean(grace=0)
        with pytest.raises(RuntimeError, match="assert_stable_async"):
            leakguard.assert_stable("cycle")

    asyncio.run(main())


def test_a_kind_that_was_not_tracked_then_is_an_error():
    leakguard.install(kinds="task")
    point = leakguard.checkpoint()
    leakguard.install(kinds="thread")
    with pytest.raises(ValueError, match="'thread' was not tracked"):
        point.leaks()
    assert not point.leaks(kinds="task")


def test_a_checkpoint_left_over_after_uninstall_never_says_clean():
    point = leakguard.checkpoint()
    leakguard.uninstall()
    leakguard.install()
    with pytest.raises(RuntimeError, match="uninstalled"):
        point.leaks()


def test_a_cycle_left_over_after_uninstall_says_so_and_begins_anew():
    leakguard.install()
    leakguard.assert_stable("left over")
    leakguard.uninstall()
    with pytest.raises(RuntimeError, match="left over"):
        leakguard.assert_stable("left over")
    leakguard.assert_stable("left over")
    leakguard.assert_stable("left over")


def test_descendants_of_the_checkpoints_taker_only(release):
    async def worker():
        point = leakguard.checkpoint()
        left = asyncio.create_task(sleeper(), name="mine")
        await asyncio.sleep(0.02)
        names = [leak.name for leak in point.leaks(scope="descendants")]
        left.cancel()
        return names

    async def main():
        leakguard.install()
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        other = asyncio.create_task(sleeper(), name="another's")
        names = await task
        other.cancel()
        return names

    assert asyncio.run(main()) == ["mine"]


def test_a_site_that_grows_is_caught_at_the_second_cycle(release):
    started = []

    def cycle():
        started.append(start(release))  # one more a cycle
        leakguard.assert_stable("reconnect", grace=0.01)

    cycle()
    with pytest.raises(LeakError) as caught:
        cycle()
    assert "1 → 2" in str(caught.value)
    assert f"test_checkpoint.py:{line_of('one more a cycle')}" in str(caught.value)
    assert len(caught.value.report) == 1
    with pytest.raises(LeakError, match="2 → 3"):
        cycle()


def test_a_steady_site_is_stable_in_both_forms():
    async def main():
        current = None
        for _ in range(3):
            if current is not None:
                current.cancel()
            current = asyncio.create_task(sleeper())
            await leakguard.assert_stable_async("steady", grace=0.5)
        current.cancel()

    asyncio.run(main())


def test_a_snapshot_lists_all_that_lives(release):
    start(release, "old")
    leakguard.install()
    start(release, "new")
    report = leakguard.snapshot(kinds="thread")
    names = {leak.name: leak for leak in report}
    assert {"MainThread", "old", "new"} <= set(names)
    assert len(names["old"].creation_stack) == 0
    assert len(names["new"].creation_stack) > 0
    assert report.reason == "snapshot"


def test_stats_has_every_kind_and_is_zero_when_not_installed():
    empty = leakguard.stats()
    assert set(empty) == {
        *("task", "thread", "native_thread", "timer", "asyncgen", "loop", "executor"),
        *("transport", "server", "process", "tempdir", "stacks", "bytes", "dropped"),
    }
    assert all(value in (0, {"created": 0, "ended": 0, "live": 0}) for value in empty.values()), (
        empty
    )


def test_stats_balance_with_threads(release):
    leakguard.install()
    before = leakguard.stats()["thread"]
    threads = [start(release) for _ in range(20)]
    during = leakguard.stats()["thread"]
    release.set()
    for thread in threads:
        thread.join()
    # join() may return a moment before the record has ended; threads of others may end, too.
    while (after := leakguard.stats()["thread"])["live"] > before["live"]:
        pass
    assert during["live"] - before["live"] == 20
    assert after["created"] - before["created"] == 20
    assert after["created"] == after["ended"] + after["live"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: leakguard.install(kinds="timers"), ValueError, "timers"),
        (lambda: leakguard.install(stack_depth=0), ValueError, "1 to 1024"),
        (lambda: leakguard.install(stack_depth=1025), ValueError, "1 to 1024"),
        (lambda: leakguard.install(stack_depth="64"), TypeError, "stack_depth"),
        (lambda: leakguard.checkpoint(3), TypeError, "label"),
        (lambda: leakguard.assert_stable(None), TypeError, "label"),
        (lambda: leakguard.checkpoint().leaks(grace=-1), ValueError, "grace"),
        (lambda: leakguard.checkpoint().leaks(scope="x"), ValueError, "descendants"),
        (lambda: leakguard.snapshot(kinds=5), TypeError, "kind"),
        (lambda: leakguard.ignore(reason="x"), ValueError, "pattern"),
        (lambda: leakguard.ignore(kind="task", reason=" "), ValueError, "reason"),
        (lambda: leakguard.ignore(kind="task"), TypeError, "reason"),
        (lambda: leakguard.ignore(kind="task", reason="x", until="soon"), ValueError, "soon"),
    ],
)
def test_each_wrong_argument_gets_an_error_that_names_it(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("call", [leakguard.install, leakguard.guard, leakguard.snapshot])
def test_a_kind_that_cannot_be_seen_here_is_refused(call, monkeypatch):
    monkeypatch.setattr("leakguard._tracking.AVAILABLE", ("task", "thread"))
    with pytest.raises(
        ValueError, match=r"'native_thread' cannot be seen here.*: 'task', 'thread'"
    ):
        call(kinds=["task", "native_thread"])


async def answer():
    return 42


async def failing():
    raise OSError


def keep(kept, function):
    kept.append(asyncio.create_task(function()))  # keep's task


def test_a_snapshot_of_done_tasks_counts_what_is_still_held_by_site():
    leakguard.install()
    kept = []
    counts = []

    async def main():
        living = asyncio.create_task(sleeper())
        for function in (answer, failing, answer):
            keep(kept, function)
            await asyncio.wait(kept)
            held = leakguard.snapshot(done=True)
            counts.append(sum(leak.creation_stack != [] for leak in held))
        cancelled = asyncio.create_task(sleeper())
        cancelled.cancel()
        await asyncio.wait([cancelled])
        report = leakguard.snapshot(done=True)
        living.cancel()
        return report, living, cancelled

    report, living, cancelled = asyncio.run(main())
    assert counts == [1, 2, 3]
    # What other tests' tracebacks hold was there before, and has no site.
    group = next(it for it in report.by_site() if it.site is not None)
    assert (group.kind, group.site.lineno, len(group.leaks)) == ("task", line_of("keep's task"), 3)
    assert {leak.function for leak in group.leaks} == {"answer", "failing"}
    assert {leak.state for leak in report} == {"done"}
    assert cancelled.get_name() in {leak.name for leak in report}
    assert living.get_name() not in {leak.name for leak in report}
    for task in kept:
        task.exception()
    del kept[:], group, task


def test_a_done_task_that_nobody_holds_is_in_no_snapshot():
    leakguard.install()

    async def main():
        await asyncio.create_task(answer())
        await asyncio.sleep(0)  # the loop's call that woke this task has the other as its argument
        return leakguard.snapshot(done=True)

    # Tasks of tests before this one may still be garbage: they have no creation stack.
    assert [leak for leak in asyncio.run(main()) if leak.creation_stack] == []


def test_a_snapshot_of_done_tasks_says_so():
    leakguard.install()
    kept = []

    async def main():
        keep(kept, answer)
        await kept[0]
        report = leakguard.snapshot(done=True)
        return Report([leak for leak in report if leak.creation_stack], reason=report.reason).text()

    text = asyncio.run(main())
    assert text.startswith("leakguard: 1 done task still held\n")
    assert "\n   done, and still held" in text


def test_a_snapshot_of_done_threads_is_refused():
    with pytest.raises(ValueError, match="done=True is about tasks"):
        leakguard.snapshot(kinds="thread", done=True)
