"""The same service without its leaks: the reader is ended, and the worker is told to stop."""

import asyncio
import threading

RECONNECTS = 3


class Client:
    def __init__(self, port):
        self._port = port
        self._reader = None
        self.lines = []

    async def connect(self):
        self._stream, self._out = await asyncio.open_connection("127.0.0.1", self._port)
        self._reader = asyncio.create_task(self._read(self._stream))

    async def _read(self, stream):
        while line := await stream.readline():
            self.lines.append(line)
        # The server said goodbye; wait for somebody to connect again.
        await asyncio.Event().wait()

    async def hello(self):
        self._out.write(b"hello\n")
        await self._out.drain()
        while not self.lines:
            await asyncio.sleep(0.01)
        self.lines.clear()
        self._out.close()
        await self._out.wait_closed()
        self._reader.cancel()
        await asyncio.wait([self._reader])


class Worker:
    """Counts in the background, until its owner stops it."""

    def __init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="counter")
        self._thread.start()

    def _count(self):
        self._stop.wait()

    def stop(self):
        self._stop.set()
        self._thread.join()


async def answer(reader, writer):
    await reader.readline()
    writer.write(b"hello yourself\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = Client(server.sockets[0].getsockname()[1])
    for _ in range(RECONNECTS):
        await client.connect()
        await client.hello()
    server.close()
    print(f"said hello {RECONNECTS} times")


worker = Worker()
try:
    asyncio.run(main())
finally:
    worker.stop()
