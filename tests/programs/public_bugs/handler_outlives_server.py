"""As aio-libs/aiohttp 7551: a request's handler outlives the server that was stopped. Both tasks
are made by asyncio.Task(...) itself, which no task factory sees.
"""

import asyncio
import sys


async def handler():
    await asyncio.sleep(3600)


class Server:
    def __init__(self):
        self.handlers = []

    async def serve(self):
        loop = asyncio.get_running_loop()
        self.handlers.append(asyncio.Task(handler(), loop=loop))  # leak
        await asyncio.sleep(3600)


async def main():
    server = Server()
    serving = asyncio.Task(server.serve(), loop=asyncio.get_running_loop())
    await asyncio.sleep(0)
    serving.cancel()
    if "all" in sys.argv:
        for task in server.handlers:
            task.cancel()
    await asyncio.wait([serving, *(server.handlers if "all" in sys.argv else [])])


asyncio.run(main())
