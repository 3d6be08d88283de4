"""worker.py MODULE:FUNCTION ARGUMENTS VARIANT: one process of a comparison; harness.py starts it.

Switches the variant on, then lets the workload set itself up: FUNCTION(loop, **ARGUMENTS) returns
what does it n times. Then each number on stdin is one turn, answered on stdout.
"""

import asyncio
import importlib
import json
import os
import sys
import time

import variants


def main() -> None:
    workload, arguments, variant = sys.argv[1:]
    module, _, function = workload.partition(":")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        variants.switch_on(variant, loop)
    except variants.UnavailableError as error:
        answer("absent", str(error))
        return
    prepare = getattr(importlib.import_module(module), function)
    work = prepare(loop, **json.loads(arguments))
    answer("ready", variant)
    for line in sys.stdin:
        count = int(line)
        wall, processor = time.perf_counter(), time.process_time()
        result = work(count)
        took = [time.perf_counter() - wall, time.process_time() - processor]
        answer("result", took if result is None else result)


def answer(key: str, value: object) -> None:
    print(json.dumps({key: value}), flush=True)


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # thousands of pending tasks would each be complained about
