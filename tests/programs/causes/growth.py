"""Tasks and threads of which there are more from cycle to cycle, and a task that gets on."""

import asyncio
import threading

import leakguard

never = threading.Event()
kept = []


async def forever():
    await asyncio.sleep(60)


async def cycle():
    kept.append(asyncio.create_task(forever()))  # one more each cycle


async def tasks():
    for _ in range(3):
        await cycle()
        leakguard.checkpoint()


async def replace():
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)
    kept[:] = [asyncio.create_task(forever())]  # one each cycle


async def replaced():
    for _ in range(4):
        await replace()
        leakguard.checkpoint()


async def too_few():
    for _ in range(2):
        await cycle()
        leakguard.checkpoint()


async def stable():
    """The error of the third call is what is looked at."""
    reports = []
    for _ in range(3):
        await cycle()
        try:
            await leakguard.assert_stable_async("cycle", grace=0)
        except leakguard.LeakError as error:
            reports.append(error.report)
    print(reports[-1].to_json(), flush=True)


def threads():
    for _ in range(3):
        thread = threading.Thread(target=never.wait, daemon=True)
        thread.start()  # a thread more each cycle
        leakguard.snapshot()


async def step_by_step():
    for part in range(2):
        await asyncio.sleep(0.01 * part)
    await asyncio.sleep(0.7)
    await asyncio.sleep(60)  # and further


async def getting_on():
    return asyncio.create_task(step_by_step())  # gets on


async def round_and_round():
    while True:
        await asyncio.sleep(0.0001)
        await asyncio.sleep(0.0001)


async def ticking():
    return asyncio.create_task(round_and_round())  # ticks


async def step():
    await asyncio.sleep(0.0001)
    await asyncio.sleep(0.0001)


async def step_for_ever():
    while True:
        await step()


async def ticking_in_a_call():
    return asyncio.create_task(step_for_ever())  # ticks in a call
