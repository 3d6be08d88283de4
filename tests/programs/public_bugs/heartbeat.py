"""As embl-bio-it/python-mattermost-autodriver 36: the heartbeat is cancelled on the good path only,
so that each connection that breaks leaves one more.
"""

import asyncio
import json
import sys

import leakguard


class Socket:
    async def beat(self):
        while True:
            await asyncio.sleep(30)

    async def connect(self, breaks):
        heartbeat = asyncio.create_task(self.beat())  # leak
        try:
            await self.listen(breaks)
        except ConnectionError:
            return
        heartbeat.cancel()

    async def listen(self, breaks):
        await asyncio.sleep(0)
        if breaks:
            raise ConnectionError("reset by peer")


async def main(breaks):
    start = leakguard.checkpoint()
    for _ in range(3):
        await asyncio.create_task(Socket().connect(breaks))
        await asyncio.sleep(0)
        leakguard.checkpoint()
    print(json.dumps([leak.to_dict() for leak in start.leaks()]))


asyncio.run(main("good" not in sys.argv))
