"""A Starlette service that leaks in three ways, and its corrected variant:

LEAKGUARD=1 uvicorn --app-dir tests/programs service_app:leaky
LEAKGUARD=1 uvicorn --app-dir tests/programs service_app:corrected
"""

import asyncio
import contextlib
import threading

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


class Service:
    def __init__(self, *, leaks):
        self._leaks = leaks
        self._reader = None
        self._stop = threading.Event()
        self._ticker = None

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        yield
        if not self._leaks:
            await self._disconnect()
            self._stop.set()
            if self._ticker is not None:
                self._ticker.join()

    async def hello(self, request):
        return PlainTextResponse("hello")

    async def reconnect(self, request):
        if not self._leaks:
            await self._disconnect()
        self._reader = asyncio.create_task(self._read())  # leaked reader
        return PlainTextResponse("connected")

    async def _read(self):
        while True:
            await asyncio.sleep(3600)

    async def _disconnect(self):
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def call(self, request):
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, self._call)  # stuck call
        if not self._leaks:
            await call
        return PlainTextResponse("called")

    def _call(self):
        self._stop.wait(None if self._leaks else 0.01)

    async def tick(self, request):
        if self._leaks or self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()  # leaked ticker
        return PlainTextResponse("ticking")

    def _tick(self):
        while not self._stop.wait(1):
            pass


def application(*, leaks):
    service = Service(leaks=leaks)
    routes = [
        Route("/", service.hello),
        Route("/reconnect", service.reconnect),
        Route("/call", service.call),
        Route("/tick", service.tick),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan)


leaky = application(leaks=True)
corrected = application(leaks=False)
