"""LEAKGUARD=1: the end of an event loop that has to wait says for what."""

import pytest

STUBBORN = """
import asyncio

async def stubborn():
    for _ in range(10):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            pass

async def main():
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    {cancel}

RUN(main())
print("done")
"""

ASYNCIO = STUBBORN.replace("RUN", "asyncio.run")
UVLOOP = STUBBORN.replace("RUN", "__import__('uvloop').run")


@pytest.mark.parametrize("text", [ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"])
def test_a_cancelled_task_for_which_the_end_waits_longer_than_the_grace(text, program):
    found = program(text.format(cancel="task.cancel()"), LEAKGUARD="exit", LEAKGUARD_GRACE="0.1")
    assert (found.returncode, found.stdout) == (23, "done\n")
    assert "leakguard: 1 leak at loop end (1 task; waited 0." in found.stderr
    assert "created at app.py:12 in main" in found.stderr
    assert "waiting at app.py:7 in stubborn" in found.stderr
    assert "why: it was cancelled, and caught that at app.py:8 in stubborn" in found.stderr


@pytest.mark.parametrize("text", [ASYNCIO, UVLOOP], ids=["asyncio", "uvloop"])
def test_one_that_ends_within_the_grace_is_clean(text, program):
    found = program(text.format(cancel="task.cancel()"), LEAKGUARD="exit", LEAKGUARD_GRACE="30")
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")


def test_an_abandoned_task_that_holds_up_the_end_is_one_leak_and_a_line(program):
    found = program(ASYNCIO.format(cancel="pass"), LEAKGUARD="exit", LEAKGUARD_GRACE="0.1")
    assert found.returncode == 23
    assert found.stderr.count(" leak at loop end ") == 1
    assert "the end of the loop is still held up after 0 s by task stubborn" in found.stderr


def test_a_stuck_call_in_the_default_executor(program):
    text = """
import asyncio, time

def stuck():
    time.sleep(1)

async def main():
    asyncio.get_running_loop().run_in_executor(None, stuck)
    asyncio.get_running_loop().run_in_executor(None, int)

asyncio.run(main())
print("done")
"""
    found = program(text, LEAKGUARD="exit", LEAKGUARD_GRACE="0.1")
    assert (found.returncode, found.stdout) == (23, "done\n")
    assert "leakguard: 1 leak at loop end (1 thread; waited 0." in found.stderr
    assert "thread stuck, 1 alive" in found.stderr
    assert "created at app.py:8 in main" in found.stderr
    assert "why: nothing can cancel a call in a thread" in found.stderr


def test_a_loop_that_ends_quickly_keeps_no_timer(program):
    text = """
import asyncio, gc

async def main():
    pass

loops = []
with asyncio.Runner() as runner:
    runner.run(main())
    loops.append(runner.get_loop())
assert not loops[0]._scheduled
"""
    found = program(text, LEAKGUARD="1")
    assert (found.returncode, found.stderr) == (0, "")
