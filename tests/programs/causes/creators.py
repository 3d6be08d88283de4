"""Tasks whose creator has gone."""

import asyncio

never = None


async def wait():
    global never
    if never is None:
        never = asyncio.Event()
    await never.wait()


async def child():
    await wait()


async def start():
    asyncio.create_task(child())  # leak


async def orphaned():
    await asyncio.create_task(start())


async def start_with_timeout():
    asyncio.create_task(child_with_timeout())  # leak of its own timeout


async def child_with_timeout():
    async with asyncio.timeout(60):
        me = asyncio.current_task()
        await wait()
        del me


async def orphaned_that_holds_itself():
    await asyncio.create_task(start_with_timeout())


async def start_and_fail():
    asyncio.create_task(child())  # leak of one that failed
    raise ValueError("no")


async def orphaned_by_an_error():
    await asyncio.gather(start_and_fail(), return_exceptions=True)


async def start_and_return():
    return asyncio.create_task(child())  # held


async def held_by_another():
    return await asyncio.create_task(start_and_return())


async def creator_lives():
    asyncio.create_task(child())  # of a creator that lives
    await asyncio.sleep(0)


async def start_and_wait():
    asyncio.create_task(child())  # left by the cancelled
    await wait()


async def cancelled_parent():
    parent = asyncio.create_task(start_and_wait(), name="parent")
    await asyncio.sleep(0)
    parent.cancel()
    await asyncio.wait([parent])


async def cancelled_parent_of_an_awaited_one():
    """Somebody else has taken it over."""
    found = []

    async def parent():
        found.append(asyncio.create_task(child()))  # taken over
        await wait()

    async def other():
        await found[0]

    task = asyncio.create_task(parent())
    await asyncio.sleep(0)
    taking = asyncio.create_task(other())  # takes over
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return taking
