"""The leaks that `doctor` plants, one of each kind: a small program of its own, that `doctor` runs
under another file name, since leakguard's own lines are never a site.

Each function plants, gives what `look` sees at that moment, and takes away what it has planted. The
line that is to be seen ends in the word `planted`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any

    from leakguard._report import Report

    Look = Callable[[str], Report]


def task(look: Look) -> Report:
    async def main() -> Report:
        event = asyncio.Event()
        waiting = asyncio.create_task(_wait(event))  # planted
        await asyncio.sleep(0)
        report = look("task")
        event.set()
        await waiting
        return report

    return asyncio.run(main())


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def thread(look: Look) -> Report:
    event = threading.Event()
    waiting = threading.Thread(target=event.wait)
    waiting.start()  # planted
    report = look("thread")
    event.set()
    waiting.join()
    return report


def native_thread(look: Look) -> Report:
    """A thread that Python does not know: libc's sem_wait as its start routine."""
    import ctypes

    libc = ctypes.CDLL(None)
    gate = ctypes.create_string_buffer(64)
    handle = ctypes.c_ulong()
    libc.sem_init(gate, 0, 0)
    libc.pthread_create(ctypes.byref(handle), None, libc.sem_wait, gate)  # planted
    report = look("native_thread")
    libc.sem_post(gate)
    libc.pthread_join(handle, None)
    return report


def timer(look: Look) -> Report:
    async def main() -> Report:
        handle = asyncio.get_running_loop().call_later(3600, int)  # planted
        report = look("timer")
        handle.cancel()
        return report

    return asyncio.run(main())


def asyncgen(look: Look) -> Report:
    async def main() -> Report:
        generator = _count()
        await anext(generator)  # planted
        report = look("asyncgen")
        await generator.aclose()
        return report

    return asyncio.run(main())


async def _count() -> AsyncGenerator[int, None]:
    yield 1


def loop(look: Look) -> Report:
    made = asyncio.new_event_loop()  # planted
    report = look("loop")
    made.close()
    return report


def executor(look: Look) -> Report:
    from concurrent.futures import ThreadPoolExecutor

    made = ThreadPoolExecutor(1)  # planted
    report = look("executor")
    made.shutdown()
    return report


def transport(look: Look) -> Report:
    import socket

    async def main() -> Report:
        near, far = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=near)  # planted
        report = look("transport")
        writer.close()
        await writer.wait_closed()
        far.close()
        return report

    return asyncio.run(main())


def server(look: Look) -> Report:
    async def main() -> Report:
        made = await asyncio.start_server(_serve, "127.0.0.1", 0)  # planted
        report = look("server")
        made.close()
        await made.wait_closed()
        return report

    return asyncio.run(main())


async def _serve(reader: Any, writer: Any) -> None:
    del reader
    writer.close()


def process(look: Look) -> Report:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})  # planted
    report = look("process")
    os.waitpid(pid, 0)
    return report


def tempdir(look: Look) -> Report:
    import tempfile

    made = tempfile.TemporaryDirectory(prefix="leakguard-doctor-")  # planted
    report = look("tempdir")
    made.cleanup()
    return report


PLANTS: dict[str, Callable[[Look], Report]] = {
    "task": task,
    "thread": thread,
    "native_thread": native_thread,
    "timer": timer,
    "asyncgen": asyncgen,
    "loop": loop,
    "executor": executor,
    "transport": transport,
    "server": server,
    "process": process,
    "tempdir": tempdir,
}
