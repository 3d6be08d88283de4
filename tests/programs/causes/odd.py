"""Tasks that are not what they seem, and loops that are closed."""

import asyncio
import threading
from unittest import mock

kept = []


class Raising(asyncio.Task):
    """Answers nothing."""

    def cancelling(self):
        raise ZeroDivisionError("cancelling")


async def forever():
    await asyncio.sleep(60)


async def raising():
    loop = asyncio.get_running_loop()
    kept.append(Raising(forever(), loop=loop))  # raises
    return asyncio.create_task(start())


async def start():
    asyncio.create_task(forever())  # ordinary
    for _ in range(2):
        await asyncio.sleep(0)


async def with_mocks():
    kept.append(asyncio.create_task(hold_mocks()))  # holds mocks
    await asyncio.sleep(0)


async def hold_mocks():
    lock = mock.MagicMock()
    lock.__aexit__ = mock.AsyncMock()
    async with mock.AsyncMock():
        await asyncio.sleep(60)
    del lock


async def pure():
    kept.append(asyncio.tasks._PyTask(forever(), loop=asyncio.get_running_loop()))  # pure
    await asyncio.sleep(0)


def spin(stop):
    async def turn():
        while not stop.is_set():
            pass

    asyncio.run(turn())


def running_elsewhere():
    """A task that runs in another thread while it is looked at."""
    stop = threading.Event()
    threading.Thread(target=spin, args=(stop,), daemon=True).start()
    return stop


def closed_loop():
    loop = asyncio.new_event_loop()
    kept.append(loop.create_task(forever()))  # on a loop that is closed
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def open_loop():
    loop = asyncio.new_event_loop()
    kept.append((loop, loop.create_task(forever())))  # on a loop that is open
    loop.run_until_complete(asyncio.sleep(0))
