"""CPython's own channels count the same births as the hooks."""

import asyncio
import re
import sys
import threading

import pytest

import leakguard
from leakguard import _core


async def nothing():
    await asyncio.sleep(0)


async def make_tasks():
    await asyncio.gather(*(nothing() for _ in range(50)))
    async with asyncio.TaskGroup() as group:
        group.create_task(nothing())
    loop = asyncio.get_running_loop()
    await asyncio.tasks._PyTask(nothing(), loop=loop)

    class Own(asyncio.Task):
        pass

    await Own(nothing(), loop=loop)


@pytest.fixture
def witness():
    leakguard.install()
    _core.witness_start()
    yield _core.witness_counts
    _core.witness_stop()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the reference tracer came with 3.13")
def test_the_reference_tracer_counts_the_same_tasks(witness):
    asyncio.run(make_tasks())
    witnessed, seen = witness()["task"]
    assert witnessed == seen
    assert seen >= 54


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 announces no thread start")
def test_the_audit_events_count_the_same_threads(witness):
    for _ in range(10):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    witnessed, seen = witness()["thread"]
    assert witnessed == seen == 10


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the reference tracer came with 3.13")
def test_a_missed_birth_shows_as_a_difference(program):
    result = program(
        "import asyncio, leakguard\n"
        "from leakguard import _core\n"
        "async def nothing():\n    pass\n"
        "async def main():\n"
        "    # An object that the slot never sees stands for a task that a hook missed.\n"
        "    asyncio.Task.__new__(asyncio.Task)\n"
        "    await asyncio.create_task(nothing())\n"
        "asyncio.run(main())\n",
        LEAKGUARD="1",
        LEAKGUARD_WITNESS="1",
    )
    told = re.fullmatch(
        r"leakguard: witness: CPython announced the birth of (\d+) tasks, the hooks saw (\d+)\n",
        result.stderr,
    )
    assert int(told[1]) == int(told[2]) + 1


def test_what_a_version_lacks_is_said():
    leakguard.install()
    _core.witness_start()
    counts = _core.witness_counts()
    _core.witness_stop()
    assert (counts["thread"] is None) == (sys.version_info < (3, 12))
    assert (counts["task"] is None) == (sys.version_info < (3, 13))
