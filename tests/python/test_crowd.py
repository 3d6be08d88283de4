"""Very many leaks: the report is there at once, without what would take long."""

import asyncio

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
