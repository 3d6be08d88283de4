"""Tasks that were cancelled and live on."""

import asyncio
import contextlib


async def cancel_after_a_tick(coroutine):
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    return task


async def swallow():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:  # catches
        pass
    await asyncio.sleep(60)


async def swallowed():
    task = asyncio.create_task(swallow())  # leak
    await asyncio.sleep(0)
    task.cancel()
    return task


async def quietly():
    with contextlib.suppress(asyncio.CancelledError):  # suppresses
        await asyncio.sleep(60)


async def call_quietly():
    await quietly()
    await asyncio.sleep(60)


async def swallowed_by_a_call():
    return await cancel_after_a_tick(call_quietly())


async def in_the_handler():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:  # handles
        await asyncio.sleep(60)


async def swallowed_in_the_handler():
    return await cancel_after_a_tick(in_the_handler())


async def outer():
    while True:
        try:  # around the call
            await inner()
        except BaseException as error:  # catches all
            print(end=str(error))


async def inner():
    await asyncio.sleep(60)


async def swallowed_further_out():
    return await cancel_after_a_tick(outer())


async def clean_up():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(60)  # cleans up


async def in_finally():
    return await cancel_after_a_tick(clean_up())


async def raise_again():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)  # will raise again
        raise


async def in_a_handler_that_raises():
    return await cancel_after_a_tick(raise_again())


@contextlib.asynccontextmanager
async def connection():
    try:
        yield
    finally:
        await asyncio.sleep(60)  # closes


async def use_connection():
    async with connection():
        await asyncio.sleep(60)


async def in_the_exit_of_a_block():
    return await cancel_after_a_tick(use_connection())


async def never_begun():
    """Cancelled before its first step, by a thread that blocks the loop: it has not run since."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    return task


async def take_back():
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        asyncio.current_task().uncancel()
    await asyncio.sleep(60)


async def uncancelled():
    """It says itself that the cancellation is dealt with."""
    return await cancel_after_a_tick(take_back())
