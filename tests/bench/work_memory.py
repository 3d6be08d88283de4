"""The workload of case `memory`: a turn is a phase, and returns what the process holds after it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

from work_tasks import forever, nothing

Loop = asyncio.AbstractEventLoop

START, LIVE, ENDED, SOME_IN_A_ROW, ALL_IN_A_ROW = range(5)

PAGE = os.sysconf("SC_PAGESIZE")


def held() -> dict[str, int]:
    """Bytes: all of the process that is in memory, and what leakguard counts of its own."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    own = 0
    if "leakguard" in sys.modules:
        counted = sys.modules["leakguard"].stats()["bytes"]
        assert isinstance(counted, int)
        own = counted
    return {"resident": pages * PAGE, "own": own}


def phases(loop: Loop, live: int, in_a_row: int) -> Callable[[int], dict[str, int]]:
    tasks: list[asyncio.Task[None]] = []
    rows = {SOME_IN_A_ROW: in_a_row // 10, ALL_IN_A_ROW: in_a_row - in_a_row // 10}

    async def create() -> None:
        for _ in range(live):
            tasks.append(loop.create_task(forever(loop.create_future())))
        await asyncio.sleep(0)

    async def end() -> None:
        for task in tasks:
            task.cancel()
        tasks.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def row(count: int) -> None:
        for _ in range(count):
            await loop.create_task(nothing())

    def phase(number: int) -> dict[str, int]:
        if number == LIVE:
            loop.run_until_complete(create())
        elif number == ENDED:
            loop.run_until_complete(end())
        elif number in rows:
            loop.run_until_complete(row(rows[number]))
        return held()

    return phase
