"""As permitio/fastapi_websocket_pubsub PR 98: each reconnect waits for the first of (reader, close
event) and drops the other, so that one more task is pending each time.
"""

import asyncio
import json
import sys

import leakguard


class Connection:
    def __init__(self):
        self.closed = asyncio.Event()
        self.messages = asyncio.Queue()

    async def read(self):
        while await self.messages.get():
            pass


async def run_until_closed(connection, tidy):
    reader = asyncio.create_task(connection.read())  # leak
    closer = asyncio.create_task(connection.closed.wait())
    _, pending = await asyncio.wait({reader, closer}, return_when=asyncio.FIRST_COMPLETED)
    if tidy:
        for task in pending:
            task.cancel()


async def main(tidy):
    connections = []
    found = []
    for _ in range(3):
        connection = Connection()
        connections.append(connection)  # the pool keeps it, for statistics
        asyncio.get_running_loop().call_soon(connection.closed.set)
        await run_until_closed(connection, tidy)
        try:
            await leakguard.assert_stable_async("reconnect", grace=0.02)
        except leakguard.LeakError as error:
            found += [leak.to_dict() for leak in error.report]
    print(json.dumps(found))


leakguard.install()
asyncio.run(main("tidy" in sys.argv))
