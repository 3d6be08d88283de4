# A program that closes its standard streams, and leaves a task.
# status: 0
import asyncio
import sys


async def main():
    asyncio.get_running_loop().create_task(asyncio.sleep(3600))


print("closing", flush=True)
sys.stderr.close()
sys.stdout.close()
asyncio.run(main())
