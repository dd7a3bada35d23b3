"""aiohttp with handlers that do nothing, on uvloop as `mec serve` runs: what an API on it can reach at most. Prints its port.

The counterpart of `served_platform.LimitServer`. POST parses the JSON of its body; GET of `/bytes/N` answers N bytes, since
these take their time on the way as well.
"""

from __future__ import annotations

import asyncio

import msgspec
import uvloop
from aiohttp import web


async def answer_nothing(request: web.Request) -> web.Response:
    """An empty answer."""
    return web.Response()


async def read_json(request: web.Request) -> web.Response:
    """An empty answer to a body of JSON."""
    msgspec.json.decode(await request.read())
    return web.Response(status=201)


async def answer_bytes(request: web.Request) -> web.Response:
    """As many bytes as the path says."""
    return web.Response(body=bytes(int(request.match_info["count"])))


async def main() -> None:
    """Serves until it is ended."""
    app = web.Application()
    app.router.add_get("/nothing", answer_nothing)
    app.router.add_post("/nothing", read_json)
    app.router.add_get("/bytes/{count}", answer_bytes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
