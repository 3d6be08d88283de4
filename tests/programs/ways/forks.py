# Children by os.fork: of the main thread, of another thread, and where a loop runs.
# status: 0
import asyncio
import os
import threading
import warnings

warnings.simplefilter("ignore", DeprecationWarning)


def child(status):
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def main():
    print(child(3), await asyncio.to_thread(child, 4))


print(child(1))
thread = threading.Thread(target=lambda: print(child(2)))
thread.start()
thread.join()
asyncio.run(main())
