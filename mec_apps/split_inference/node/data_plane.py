"""The receiving end of the data plane on an edge node, and its links to the nodes that follow in a chain.

Inbound streams come from gateways and from the nodes before; results go back on the stream of the gateway that owns the
session. Counterpart: `peer_link` on the other side of each stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import grpc
import grpc.aio

from mec_apps.split_inference.frames import (
    ARRIVAL,
    MAX_MESSAGE_BYTES,
    Frame,
    FrameError,
    FrameFault,
    FrameKind,
    Refusal,
    gateway_of,
    pack_frame,
    unpack_frame,
)
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.node.compute import Outcome, refuse
from mec_apps.split_inference.peer_link import DATA_PLANE_SERVICE, LinkLost, LinkPool
from mec_platform.background import BackgroundTasks
from mec_platform.domain.failures import Failure
from mec_platform.identity.call_gate import caller_of
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.identity.names import Grant, Role

GATEWAY_GRACE_S = 30.0
"""A gateway whose stream broke is back within this time, or it is gone."""

HELLO = FrameKind.HELLO
_OF_GATEWAYS = frozenset({FrameKind.TOKENS, FrameKind.ROWS})
ServerStream = grpc.aio.ServicerContext[bytes, bytes]
_log = logging.getLogger(__name__)


class DataPlane:
    """All streams of one node. `submit` hands a frame to the compute thread; `largest_rows_bytes` bounds a frame's rows.

    `on_link_lost` learns of streams to other nodes that broke.
    """

    def __init__(
        self,
        node: str,
        shapers: LinkShapers,
        submit: Callable[[Frame], None],
        on_gateway_gone: Callable[[int], Awaitable[None]],
        identity: GrpcIdentity | None = None,
        largest_rows_bytes: int = MAX_MESSAGE_BYTES,
        on_link_lost: Callable[[str, Failure], None] = lambda node, failure: None,
    ) -> None:
        self._node = node
        self._submit = submit
        self._on_gateway_gone = on_gateway_gone
        self._largest_rows_bytes = largest_rows_bytes
        self._tell_link_lost = on_link_lost
        self._tasks = BackgroundTasks()
        self._gateways: dict[int, asyncio.Queue[bytes]] = {}
        self._absences: dict[int, int] = {}
        self._owners: dict[int, str] = {}
        hello = Frame(FrameKind.HELLO, payload=node.encode())
        self.links = LinkPool(hello, shapers, self._on_frame_back, self._on_link_lost, identity)

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler of the stream: raw bytes in and out."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve_stream)
        return grpc.method_handlers_generic_handler(DATA_PLANE_SERVICE, {"Frames": method})

    def deliver(self, outcomes: Sequence[Outcome]) -> None:
        """Sends what the compute thread produced to the next stage or to the gateway."""
        for outcome in outcomes:
            if outcome.next_node is None:
                self._send_to_gateway(outcome.frame)
                continue
            try:
                self.links.get(outcome.next_node).send(outcome.frame)
            except LinkLost as lost:
                if outcome.frame.kind is not FrameKind.END:
                    self._send_to_gateway(refuse(outcome.frame, Refusal.NEXT_HOP_LOST, str(lost)))

    async def stop(self) -> None:
        """Closes every link; inbound streams end with the server."""
        await self.links.close()
        await self._tasks.stop()

    def _send_to_gateway(self, frame: Frame) -> None:
        outbound = self._gateways.get(gateway_of(frame.session))
        if outbound is not None:
            outbound.put_nowait(pack_frame(frame))

    def _on_frame_back(self, node: str, frame: Frame) -> None:
        """A following node sends nothing back but hellos and echoes, which the link itself takes."""
        _log.warning("unexpected %s frame from %s", frame.kind.name, node)

    def _on_link_lost(self, node: str, failure: Failure) -> None:
        _log.warning("link to %s lost: %s", node, failure)
        self._tell_link_lost(node, failure)

    async def _serve_stream(self, _requests: object, stream: ServerStream) -> None:
        # Before the writer's first frame can: where `abort` finds that frame under way, gRPC sends the metadata twice, which
        # fails, and the caller never learns that its stream has ended.
        await stream.send_initial_metadata(())
        outbound: asyncio.Queue[bytes] = asyncio.Queue()
        writer = self._tasks.start("data plane writer", _write(stream, outbound))
        gateway = 0
        caller = caller_of(stream)
        known_as = None if caller is None else caller.name_as(Role.MEMBER)
        is_gateway = caller is None or Grant.GATEWAY in caller.grants
        try:
            while True:
                message: object = await stream.read()
                if not isinstance(message, bytes):
                    return
                frame = unpack_frame(message, self._largest_rows_bytes)
                if not is_gateway and (
                    frame.kind in _OF_GATEWAYS or (gateway_of(frame.session) and frame.kind is HELLO)
                ):
                    raise FrameError(FrameFault.SENDER, f"{known_as} was not granted to be a gateway")
                match frame.kind:
                    case FrameKind.TOKENS | FrameKind.ROWS | FrameKind.HIDDEN:
                        if frame.flags & ARRIVAL:
                            outbound.put_nowait(pack_frame(Frame(FrameKind.ARRIVED, epoch=time.perf_counter_ns())))
                            frame = replace(frame, flags=frame.flags & ~ARRIVAL)  # it is of this link alone
                        self._submit(frame)
                    case FrameKind.END:
                        self._submit(frame)
                    case FrameKind.ROLL if gateway_of(frame.session) == gateway:
                        self._submit(frame)
                    case FrameKind.PROBE:
                        echo = replace(frame, kind=FrameKind.PROBE_ECHO, payload=b"")
                        outbound.put_nowait(pack_frame(echo))
                    case FrameKind.HELLO:
                        gateway = self._greet(frame, known_as)
                        if gateway:
                            self._gateways[gateway] = outbound
                        outbound.put_nowait(pack_frame(Frame(FrameKind.HELLO, payload=self._node.encode())))
                    case _:
                        raise FrameError(FrameFault.KIND, f"a {frame.kind.name} frame is not for a node")
        except FrameError as error:
            _log.warning("a stream of %s ends: %s", known_as or "somebody", error)
            await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            if self._gateways.get(gateway) is outbound:
                del self._gateways[gateway]
                absence = self._absences[gateway] = self._absences.get(gateway, 0) + 1
                with contextlib.suppress(RuntimeError):  # this node is stopping
                    self._tasks.start("await gateway", self._await_gateway(gateway, absence))
            await self._tasks.cancel(writer)

    def _greet(self, hello: Frame, known_as: str | None) -> int:
        """The number of the gateway that says hello, 0 for a node. Raises FrameError where it is not who it says it is:
        `known_as` is the name in its certificate, None in the clear."""
        said = hello.payload.decode(errors="replace")
        gateway = gateway_of(hello.session)
        if known_as is None:
            return gateway
        if said != known_as:
            raise FrameError(FrameFault.SENDER, f"{known_as} says that it is {said!r}")
        if gateway and self._owners.setdefault(gateway, known_as) != known_as:
            raise FrameError(FrameFault.SENDER, f"gateway {gateway:x} is {self._owners[gateway]}, not {known_as}")
        return gateway

    async def _await_gateway(self, gateway: int, absence: int) -> None:
        """A gateway that stays away takes its sessions with it; one that came and left again is awaited anew."""
        await asyncio.sleep(GATEWAY_GRACE_S)
        if gateway not in self._gateways and self._absences.get(gateway) == absence:
            del self._absences[gateway]
            self._owners.pop(gateway, None)
            _log.warning("gateway %x has been gone for %g s; its sessions end", gateway, GATEWAY_GRACE_S)
            await self._on_gateway_gone(gateway)


async def _write(stream: ServerStream, outbound: asyncio.Queue[bytes]) -> None:
    # The stream may be gone by the time a frame is due; the reading side then ends and cancels this.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.BaseError):
        while True:
            await stream.write(await outbound.get())
