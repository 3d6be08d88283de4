"""What watching costs: tasks made with and without leakguard, interleaved in one process.

Prints ratios, the median of pairs (with, without, with, without ...) and their spread; never an
absolute time alone, for machines differ and are noisy.

    python tests/bench/run.py            # 15 pairs
    python tests/bench/run.py --quick    # 7 pairs of a quarter of the size
"""

import argparse
import asyncio
import statistics
import sys
import time

import leakguard

DEPTH = 20


async def nothing():
    pass


def at_depth(depth, count):
    """Makes `count` coroutines that create, await and free a task, `depth` frames deep."""

    async def rounds():
        for _ in range(count):
            await asyncio.create_task(nothing())

    async def deeper(left):
        if left == 0:
            await rounds()
        else:
            await deeper(left - 1)

    return deeper(depth)


async def measure_tasks(count, live):
    """Seconds for `count` tasks, with `live` others alive."""
    others = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(live)]
    await asyncio.sleep(0)
    began = time.perf_counter()
    await at_depth(DEPTH, count)
    took = time.perf_counter() - began
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return took


def tasks(live):
    def once(count, tracked):
        if tracked:
            leakguard.install()
        try:
            return asyncio.run(measure_tasks(count, live))
        finally:
            leakguard.uninstall()

    return once


def compare(name, once, count, pairs):
    once(count, tracked=True)
    once(count, tracked=False)
    ratios = sorted(once(count, tracked=True) / once(count, tracked=False) for _ in range(pairs))
    quarter = len(ratios) // 4
    print(
        f"{name:44} {statistics.median(ratios):5.3f}   "
        f"(quartiles {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}, {pairs} pairs)"
    )


def clean_guard(count):
    """The price of a clean block, as a multiple of creating and awaiting one task."""
    leakguard.install()
    began = time.perf_counter()
    for _ in range(count):
        with leakguard.guard():
            pass
    block = (time.perf_counter() - began) / count
    leakguard.uninstall()
    task = asyncio.run(measure_tasks(count, 0)) / count
    print(f"{'clean guard, in tasks made without leakguard':44} {block / task:5.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds")
    quick = parser.parse_args().quick
    count, pairs = (5_000, 7) if quick else (20_000, 15)
    print(f"CPython {sys.version.split()[0]}; with leakguard / without, median of pairs")
    for live in (0, 10_000):
        compare(f"task at depth {DEPTH}, {live:,} others alive", tasks(live), count, pairs)
    clean_guard(count)


if __name__ == "__main__":
    main()
