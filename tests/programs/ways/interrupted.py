# KeyboardInterrupt in the main thread, while a task is left.
# status: -2
# report: 1 leak at loop end (1 task
import asyncio
import os
import signal

# Python does this by itself, except where it was started with the signal ignored (`&` in a script).
signal.signal(signal.SIGINT, signal.default_int_handler)


async def main():
    task = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    print(task.done(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(3600)


asyncio.run(main())
