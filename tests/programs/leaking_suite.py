"""A test suite that leaves something behind. The README shows what `pytest --leakguard` says."""

import asyncio
import threading

import pytest


class Client:
    async def connect(self):
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        await asyncio.sleep(3600)

    async def close(self):
        self._reader.cancel()


@pytest.mark.asyncio
async def test_closes():
    client = Client()
    await client.connect()
    await client.close()


@pytest.mark.asyncio
async def test_forgets_to_close():
    await Client().connect()


def test_forgets_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
