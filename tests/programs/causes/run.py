"""run.py MODULE FUNCTION [GRACE]: calls it inside a guard and writes the report as JSON.

What the function returns is held to the end; nothing is cancelled, joined or collected.
"""

import asyncio
import importlib
import inspect
import os
import sys

import leakguard


def leave(report, held):
    del held  # the caller has it
    print(report.to_json() if report else "", flush=True)
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()  # it would keep the pipe open
    os._exit(0)


async def check_async(function, grace):
    async with leakguard.guard(action="log", grace=grace) as guard:
        held = await function()
    return guard.report, held


def check(function, grace):
    with leakguard.guard(action="log", grace=grace) as guard:
        held = function()
    return guard.report, held


async def main(function, grace):
    found = await check_async(function, grace)
    leave(*found)


def run(module, name, grace="0.02"):
    if "TEST_BUDGET" in os.environ:
        from leakguard import _reach

        _reach.BUDGET = float(os.environ["TEST_BUDGET"])
    function = getattr(importlib.import_module(module), name)
    if inspect.iscoroutinefunction(function):
        asyncio.run(main(function, float(grace)))
    found = check(function, float(grace))
    leave(*found)


run(*sys.argv[1:])
