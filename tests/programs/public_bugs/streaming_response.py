"""As Kludex/starlette 1022: the task that runs the application puts the response's parts on a
bounded queue, and waits for ever once the client has gone and nobody reads it.
"""

import asyncio
import sys


class Middleware:
    async def application(self, send):
        for part in range(10):
            await send(part)

    async def respond(self, most):
        parts = asyncio.Queue(maxsize=1)
        task = asyncio.create_task(self.application(parts.put))  # leak
        for _ in range(most):
            await parts.get()  # the client goes away
        del task


async def main():
    # A server's handler, one for each request.
    await asyncio.create_task(Middleware().respond(10 if "read" in sys.argv else 1))
    await asyncio.sleep(0)
    print("served")


asyncio.run(main())
