"""A proxy in front of a member's gRPC port that keeps every message which goes through, with the method it belongs to.

Others reach the member there alone (`mec node --advertise`), so what is not in the record has not reached it.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio

from mec_apps.split_inference.frames import Frame, unpack_frame
from mec_apps.split_inference.peer_link import FRAMES_METHOD
from mec_platform.background import BackgroundTasks
from mec_platform.rpc.endpoints import make_server, open_channel
from mec_platform.rpc.v1 import edge_node_pb2

_NODE = "/mec_platform.rpc.v1.EdgeNode"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Seen:
    """One message of the call of that number; `inward` on its way to the member."""

    method: str
    inward: bool
    message: bytes
    call: int


class Wiretap(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes every call on to the member, whatever it is."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.port = _free_port()
        """Where the member is to listen."""
        self.address = ""
        self._calls = itertools.count()
        self._tasks = BackgroundTasks()
        self._server = make_server()
        self._server.add_generic_rpc_handlers((self,))

    async def start(self) -> None:
        self.address = f"{LOOPBACK}:{self._server.add_insecure_port(f'{LOOPBACK}:0')}"
        self._member = open_channel(f"{LOOPBACK}:{self.port}", reconnect_ms=200)
        await self._server.start()

    async def stop(self) -> None:
        """Others find the port closed, as they do that of a member which is gone."""
        await self._server.stop(grace=None)
        await self._member.close()
        await self._tasks.stop()

    @property
    def options(self) -> tuple[str, ...]:
        """Of `mec node`: to listen behind this."""
        return ("--port", str(self.port), "--advertise", self.address)

    def frames(self, since: int = 0) -> Iterator[Frame]:
        """What the data plane brought to the member."""
        for each in self.seen[since:]:
            if each.inward and each.method == FRAMES_METHOD:
                yield unpack_frame(each.message)

    def answered_frames(self) -> Iterator[Frame]:
        """What the member sent back on the data plane."""
        for each in self.seen:
            if not each.inward and each.method == FRAMES_METHOD:
                yield unpack_frame(each.message)

    def streams(self) -> Iterator[tuple[list[Frame], list[Frame]]]:
        """What each stream of the data plane has brought to the member and taken from it."""
        by_call: dict[int, tuple[list[Frame], list[Frame]]] = {}
        for each in self.seen:
            if each.method == FRAMES_METHOD:
                by_call.setdefault(each.call, ([], []))[not each.inward].append(unpack_frame(each.message))
        yield from by_call.values()

    def kv_chunks(self) -> Iterator[edge_node_pb2.KvChunk]:
        """KV that was brought to the member."""
        for each in self.seen:
            if each.inward and each.method == f"{_NODE}/ImportKv":
                yield edge_node_pb2.KvChunk.FromString(each.message)

    def stages(self) -> Iterator[edge_node_pb2.LoadStageRequest]:
        """Stages that the member was asked to hold."""
        for each in self.seen:
            if each.inward and each.method == f"{_NODE}/LoadStage":
                yield edge_node_pb2.LoadStageRequest.FromString(each.message)

    def service(self, details: Any) -> Any:
        """Called by gRPC for each call: on the wire each kind of method is a stream of messages both ways."""
        return grpc.stream_stream_rpc_method_handler(partial(self._pass_on, details.method))

    async def _pass_on(self, method: str, requests: Any, context: Any) -> AsyncIterator[bytes]:
        number = next(self._calls)
        call: Any = self._member.stream_stream(method)(timeout=context.time_remaining())

        async def bring() -> None:
            async for request in requests:
                self.seen.append(Seen(method, True, request, number))
                await call.write(request)
            await call.done_writing()

        bringing = self._tasks.start(f"bring {method}", bring())
        try:
            async for answer in call:
                self.seen.append(Seen(method, False, answer, number))
                yield answer
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
        finally:
            call.cancel()
            await self._tasks.cancel(bringing)


@asynccontextmanager
async def wiretaps(*names: str) -> AsyncIterator[dict[str, Wiretap]]:
    """One for each member."""
    taps = {name: Wiretap() for name in names}
    try:
        for tap in taps.values():
            await tap.start()
        yield taps
    finally:
        for tap in taps.values():
            await tap.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
