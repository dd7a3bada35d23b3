"""grpc.aio with a method that does nothing: what any unary method can reach at most. Prints its address.

The counterpart of `served_platform.EmptyGrpcServer`. It answers as many bytes as the request says, since these take their
time on the way as well.
"""

from __future__ import annotations

import asyncio

import grpc
import uvloop

from mec_platform.rpc.endpoints import Context, make_server, start_server

METHOD = "/benchmark.Empty/Answer"


async def answer(request: bytes, context: Context) -> bytes:
    """So many zeros."""
    return bytes(int(request))


async def main() -> None:
    """Serves until it is ended."""
    server = make_server()
    handlers = {"Answer": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Empty", handlers),))
    print(await start_server(server, "127.0.0.1", 0, []), flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
