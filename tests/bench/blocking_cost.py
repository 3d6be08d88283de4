"""What watching for blocked loops costs an iteration that does nothing: the dearest case.

Rounds with and without it take turns in one process; the ratio is that of the medians.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import leakguard

ITERATIONS = 20_000
ROUNDS = 15


async def sleeps() -> None:
    """A task that yields."""
    for _ in range(ITERATIONS):
        await asyncio.sleep(0)


async def calls() -> None:
    """A callback that asks for the next."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def again(left: int) -> None:
        if left:
            loop.call_soon(again, left - 1)
        else:
            done.set_result(None)

    again(ITERATIONS)
    await done


def nanoseconds(work: Any, new_loop: Callable[[], asyncio.AbstractEventLoop], on: bool) -> float:
    """Of this thread, for one iteration."""
    with leakguard.guard(blocking=0.1, grace=0) if on else nullcontext():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(asyncio.sleep(0))
            begun = time.thread_time_ns()
            runner.run(work())
            return (time.thread_time_ns() - begun) / ITERATIONS


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.SelectorEventLoop
    }
    try:
        import uvloop
    except ImportError:
        return found
    return {**found, "uvloop": uvloop.new_event_loop}


def main() -> None:
    leakguard.install()
    print(f"Python {sys.version.split()[0]}, ns of CPU an iteration")
    for name, new_loop in loops().items():
        for work in (sleeps, calls):
            found: dict[bool, list[float]] = {False: [], True: []}
            for number in range(2 * ROUNDS):
                on = number % 2 == 1
                found[on].append(nanoseconds(work, new_loop, on))
            off, on_ = (statistics.median(found[key]) for key in (False, True))
            print(
                f"  {name:8} {work.__name__:7} without {off:7.0f}  with {on_:7.0f}  "
                f"ratio {on_ / off:.3f}  (+{on_ - off:.0f} ns)"
            )


if __name__ == "__main__":
    main()
