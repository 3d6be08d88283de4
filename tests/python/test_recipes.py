"""The recipes of docs/recipes.md, run as they stand there, in a program that leaks."""

import re
import textwrap
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs/recipes.md"

pytestmark = pytest.mark.skipif(
    not DOCUMENT.is_file(), reason="the tests run without the source tree"
)

DRIVERS = {
    "Start-up and shutdown of an ASGI application": (
        """
        import asyncio

        async def open_connections(app):
            app.append(asyncio.create_task(asyncio.sleep(3600)))

        async def close_connections(app):
            pass

        async def main():
            async with lifespan([]):
                pass

        asyncio.run(main())
        """,
        "LeakError: leakguard: 1 leak since checkpoint 'start-up' (1 task",
    ),
    "A client that reconnects": (
        """
        import asyncio

        class Client:
            async def connect(self):
                self.reader = asyncio.create_task(asyncio.sleep(3600))

            async def serve(self):
                await asyncio.sleep(0)

        asyncio.run(stay_connected(Client(), asyncio.Event()))
        """,
        "why: live resources created here at the call before and now: 1 → 2",
    ),
    "A worker that reloads its configuration": (
        """
        import threading, time

        class Service:
            def stop(self):
                pass

            def start(self, configuration):
                threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()

        for configuration in range(3):
            on_reload(Service(), configuration)
        """,
        "why: live resources created here at the call before and now: 1 → 2",
    ),
    "A gunicorn or uvicorn worker": (
        """
        import os, sys, threading, time, types

        pid = os.fork()
        if pid == 0:
            worker = types.SimpleNamespace()
            post_fork(None, worker)
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            log = types.SimpleNamespace(warning=lambda text: print(text, file=sys.stderr))
            worker_exit(types.SimpleNamespace(log=log), worker)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        "leakguard: 1 leak since checkpoint 'worker start' (1 thread",
    ),
    "A pool of worker processes, as in Celery": (
        """
        import logging, threading, time
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing

        logging.basicConfig()

        def handle(message):
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            return message

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
                assert list(pool.map(job, [1, 2])) == [1, 2]
        """,
        "WARNING:leakguard:leaked thread sleep created at ",
    ),
}


def recipes():
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
    return dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", text, re.M | re.S))


def test_each_recipe_is_tried():
    assert recipes().keys() == DRIVERS.keys()


@pytest.mark.parametrize("name", DRIVERS)
def test_a_recipe_finds_the_leak(name, program):
    driver, words = DRIVERS[name]
    found = program(recipes()[name] + textwrap.dedent(driver))
    assert words in found.stderr
