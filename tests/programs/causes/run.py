"""run.py MODULE FUNCTION [GRACE]: calls it inside a guard and writes the report as JSON.

What the function returns is held until the guard has looked; nothing is cancelled or joined.
"""

import asyncio
import importlib
import inspect
import os
import sys

import leakguard


def leave(report):
    print(report.to_json() if report else "", flush=True)
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()  # it would keep the pipe open
    os._exit(0)


async def check_async(function, grace):
    async with leakguard.guard(action="log", grace=grace) as guard:
        held = await function()
    del held
    return guard.report


def check(function, grace):
    with leakguard.guard(action="log", grace=grace) as guard:
        held = function()
    del held
    return guard.report


async def main(function, grace):
    leave(await check_async(function, grace))


def run(module, name, grace="0.02"):
    if "TEST_BUDGET" in os.environ:
        from leakguard import _reach

        _reach.BUDGET = float(os.environ["TEST_BUDGET"])
    function = getattr(importlib.import_module(module), name)
    if inspect.iscoroutinefunction(function):
        asyncio.run(main(function, float(grace)))
    leave(check(function, float(grace)))


run(*sys.argv[1:])
