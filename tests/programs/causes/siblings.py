"""Tasks that were given to a gather or a wait, which ended without them."""

import asyncio


async def forever():
    await asyncio.sleep(60)


async def short():
    await asyncio.sleep(0)


async def fail():
    raise ValueError("no")


async def survived_a_gather():
    try:
        await asyncio.gather(forever(), fail())  # gathers
    except ValueError:
        pass


async def still_gathered():
    return asyncio.gather(forever(), short())  # is gathered


async def session():
    reader = asyncio.create_task(forever())  # reads
    closer = asyncio.create_task(short())
    await asyncio.wait({reader, closer}, return_when=asyncio.FIRST_COMPLETED)


async def survived_a_wait():
    await session()


async def session_with_timeout():
    await asyncio.wait(
        [
            asyncio.create_task(forever()),  # of a list
            asyncio.create_task(short()),
        ],
        timeout=0,
    )


async def survived_a_timeout():
    await session_with_timeout()


class Client:
    async def call(self):
        self.task = asyncio.create_task(forever())  # shielded
        try:
            await asyncio.wait_for(asyncio.shield(self.task), 0.001)
        except TimeoutError:
            pass


async def survived_a_shield():
    client = Client()
    await client.call()
    return client


async def waiting_session():
    reader = asyncio.create_task(forever())  # waited for
    closer = asyncio.create_task(forever())  # waited for too
    await asyncio.wait({reader, closer}, return_when=asyncio.FIRST_COMPLETED)


async def still_waited_for():
    task = asyncio.create_task(waiting_session())  # waits
    await asyncio.sleep(0)
    return task


async def late_session():
    reader = asyncio.create_task(forever())  # not yet waited for
    await asyncio.sleep(60)
    await asyncio.wait({reader}, return_when=asyncio.FIRST_COMPLETED)


async def not_yet_waited_for():
    task = asyncio.create_task(late_session())  # will wait
    await asyncio.sleep(0)
    return task


async def other_session():
    other = asyncio.create_task(forever())  # not given
    done = asyncio.create_task(short())
    await asyncio.wait({done}, return_when=asyncio.FIRST_COMPLETED)
    return other


async def not_given_to_the_wait():
    return await other_session()
