# sys.exit with a status, in the main coroutine, while a task is left.
# status: 3
# report: 1 leak at loop end (1 task
import asyncio
import sys


async def main():
    task = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    print(task.done())
    sys.exit(3)


asyncio.run(main())
