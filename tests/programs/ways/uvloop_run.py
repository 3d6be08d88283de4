# uvloop, with a task left.
# status: 0
# report: 1 leak at loop end (1 task
import asyncio

import uvloop


async def main():
    asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    await asyncio.to_thread(print, "in a worker")


uvloop.run(main())
