"""servers.py aiohttp|starlette VARIANT: a server that says hello, on a free port of the loopback.

Prints the port, serves until its stdin ends. The case `http` runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

import variants


async def aiohttp(listener: socket.socket) -> None:
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await asyncio.get_running_loop().create_future()


async def starlette(listener: socket.socket) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    application = Starlette(routes=[Route("/", hello)])
    config = uvicorn.Config(application, log_level="warning", access_log=False, http="h11")
    await uvicorn.Server(config).serve(sockets=[listener])


SERVERS = {"aiohttp": aiohttp, "starlette": starlette}


def main() -> None:
    name, variant = sys.argv[1:]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        variants.need(name)
        if name == "starlette":
            variants.need("uvicorn")
        variants.switch_on(variant, loop)
    except variants.UnavailableError as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    # asyncio switches Nagle's algorithm off only where the protocol is said; with it, each answer
    # waits 40 ms for an acknowledgement while the processor is idle, and hides all cost.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    loop.add_reader(0, os._exit, 0)
    loop.run_until_complete(SERVERS[name](listener))


if __name__ == "__main__":
    main()
