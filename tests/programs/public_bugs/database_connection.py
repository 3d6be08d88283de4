"""As omnilib/aiosqlite 369: each connection has a thread, and one that is never closed keeps the
process from ending.

A database client that runs its calls in a thread of its own, and a program that forgets close().
"""

import asyncio
import queue
import sys
import threading
import time


def run_calls(calls):
    while True:
        call = calls.get()
        if call is None:
            return
        call()


class Connection:
    def __init__(self):
        self._calls = queue.SimpleQueue()
        self._thread = threading.Thread(target=run_calls, args=(self._calls,))

    async def execute(self, function):
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        found = []

        def call():
            found.append(function())
            loop.call_soon_threadsafe(done.set)

        self._calls.put(call)
        await done.wait()
        return found[0]

    def open(self):
        self._thread.start()  # leak
        return self

    def close(self):
        self._calls.put(None)


async def main():
    connection = Connection().open()
    print(await connection.execute(lambda: "row"), flush=True)
    if "close" in sys.argv:
        connection.close()
    else:
        # A user would press Ctrl-C: here the thread is let go after a while.
        threading.Thread(target=let_go, args=(connection,), daemon=True).start()


def let_go(connection):
    time.sleep(1)
    connection.close()


asyncio.run(main())
