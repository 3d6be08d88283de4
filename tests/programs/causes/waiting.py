"""Tasks that wait for what nothing that can still run has, and near misses."""

import asyncio

SEEN = asyncio.Event()  # a global: anybody may set it


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def start(coroutine, name):
    return asyncio.create_task(coroutine, name=name)  # starts


async def wait_for(event):
    await event.wait()


async def own_event():
    asyncio.create_task(wait_for(asyncio.Event()))  # own event
    await settle()


async def held():
    task = asyncio.create_task(wait_for(asyncio.Event()))  # held
    await settle()
    return task


async def stream(queue):
    """What a middleware did that passed a response on by a queue (starlette 1022)."""
    for part in range(3):
        await queue.put(part)


async def full_queue():
    queue = asyncio.Queue(maxsize=1)
    asyncio.create_task(stream(queue))  # puts
    await queue.get()
    await settle()


async def set_after(mine, other):
    await mine.wait()
    other.set()


async def each_other():
    one, two = asyncio.Event(), asyncio.Event()
    start(set_after(one, two), "one")
    start(set_after(two, one), "two")
    await settle()


async def gather_them():
    await asyncio.gather(wait_for(asyncio.Event()), wait_for(asyncio.Event()))


async def chain():
    start(gather_them(), "gathers")
    await settle()


def at_the_end_of_run():
    async def main():
        start(wait_for(asyncio.Event()), "left")
        await settle()

    asyncio.run(main())


async def global_event():
    start(wait_for(SEEN), "it")
    await settle()


async def sleeps():
    start(asyncio.sleep(60), "it")
    await settle()


async def limited():
    start(asyncio.wait_for(asyncio.Event().wait(), 60), "it")
    await settle()


async def returned_event():
    event = asyncio.Event()
    start(wait_for(event), "it")
    await settle()
    return event


async def set_later():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(60, event.set)
    start(wait_for(event), "it")
    await settle()


async def ten_thousand():
    for _ in range(10_000):
        start(wait_for(asyncio.Event()), "one of many")
    await settle()
