"""Very many leaks: the report is there at once, without what would take long."""

import asyncio
import gc
import types

import leakguard
from leakguard import _describe

from .conftest import line_of


async def left_behind(count):
    point = leakguard.checkpoint()
    tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(count)]  # crowd
    await asyncio.sleep(0)
    report = point.leaks()
    for task in tasks:
        task.cancel()
    return report


def test_in_a_crowd_the_sites_are_told_and_that_causes_were_not_worked_out(monkeypatch):
    monkeypatch.setattr(_describe, "_MOST_TASKS", 50)
    report = asyncio.run(left_behind(50))
    assert {leak.cause for leak in report} == {None}
    assert [(group.site.lineno, len(group.leaks)) for group in report.by_site()] == [
        (line_of("crowd"), 50)
    ]
    assert report.notes == ("so many tasks are alive that it was not worked out why each was left",)


def test_without_a_crowd_each_has_its_cause():
    report = asyncio.run(left_behind(50))
    assert {leak.cause for leak in report} == {"still-running"}
    assert report.notes == ()


async def staying(future):
    await future  # stay


async def passing_on(future):
    await staying(future)


async def left_at_two_places(count):
    loop = asyncio.get_running_loop()
    point = leakguard.checkpoint()
    tasks = [
        asyncio.create_task(made(loop.create_future()))
        for _ in range(count)
        for made in (staying, passing_on)
    ]
    tasks.append(asyncio.create_task(sleeping_in_a_generator()))
    await asyncio.sleep(0)
    fresh = asyncio.create_task(staying(loop.create_future()))
    frames = count_frames()
    report = point.leaks()
    assert count_frames() - frames < 10  # of few: to ask a coroutine leaves a frame object in it
    for task in (*tasks, fresh):
        task.cancel()
    return report


def count_frames():
    return sum(isinstance(found, types.FrameType) for found in gc.get_objects())


class Pause:
    def __await__(self):
        yield


async def sleeping_in_a_generator():
    while True:
        await Pause()


def test_leaks_that_wait_at_one_place_share_its_stack(monkeypatch):
    monkeypatch.setattr(_describe, "_MOST_TASKS", 50)
    report = asyncio.run(left_at_two_places(50))
    stacks = [[frame.name for frame in leak.current_stack] for leak in report]
    assert stacks == [
        *[["staying"], ["passing_on", "staying"]] * 50,
        ["sleeping_in_a_generator", "Pause.__await__"],
        ["staying"],
    ]
    assert [leak.state for leak in report] == ["waiting"] * 101 + ["pending"]
    assert {frame.lineno for leak in report[:100] for frame in leak.current_stack[-1:]} == {
        line_of("stay")
    }
    for first in (0, 1):
        assert len({id(leak._current) for leak in report[first:100:2]}) == 1
    assert report[-1].current_stack[0].lineno == staying.__code__.co_firstlineno


def test_a_leak_is_nothing_that_the_collector_looks_at():
    class Own(leakguard.Leak):
        pass

    report = asyncio.run(left_behind(3))
    assert not any(gc.is_tracked(leak) for leak in report)
    own = Own(kind="task", serial=1, name=None, function="f", state=None, age=0.0)
    assert gc.is_tracked(own)  # what it may have attributes of its own for, nobody knows
