"""How long the marking takes that proves that a task waits for ever, on a big heap.

Prints seconds for one call with the given number of objects alive beside the tasks, and, as a
measure of this machine, for one full garbage collection of the same heap.

    python tests/bench/waiting_forever.py [objects (1000000)] [tasks (1000)]
"""

import asyncio
import gc
import statistics
import sys
import time

import leakguard
from leakguard import _core


class Node:
    def __init__(self, number):
        self.number = number
        self.around = {"number": [number], "text": str(number)}


async def forever():
    await asyncio.Event().wait()


def seconds(function, *arguments):
    began = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - began, result


async def main(objects, tasks):
    leakguard.install(kinds="task")
    heap = []
    while len(heap) * 3 < objects:  # a node, its dict, its list
        heap.append(Node(len(heap)))
    started = [asyncio.create_task(forever()) for _ in range(tasks)]
    await asyncio.sleep(0)
    marking, collecting = [], []
    for _ in range(5):
        took, found = seconds(_core.waiting_forever, (), (), 60.0)
        assert len(found[0]) == tasks
        marking.append(took)
        collecting.append(seconds(gc.collect)[0])
    print(
        f"{len(gc.get_objects()):,} objects, {tasks:,} tasks: marking "
        f"{statistics.median(marking):.2f} s (up to {max(marking):.2f}), a full collection "
        f"{statistics.median(collecting):.2f} s"
    )
    for task in started:
        task.cancel()


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:3]]
    asyncio.run(main(*given, *(1_000_000, 1_000)[len(given) :]))
