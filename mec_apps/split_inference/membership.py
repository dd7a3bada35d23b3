"""How a node or gateway belongs to the platform: a report every second, and probes of its links to the nodes it hears of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import grpc
import grpc.aio

from mec_apps.split_inference.peer_link import LinkMeasurement
from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

REPORT_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 1.0
_FINAL = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""What the platform says to a member that it will not take, however often it asks."""

_log = logging.getLogger(__name__)


class JoinError(MendableError):
    """The platform cannot be reached or does not take this member; the message says what to do."""


class Membership:
    """Reports what `build_report` gives with the links measured; `measure` probes the link to one peer.

    The platform is spoken to as `identity`. `on_reply` learns the platform's answer to each report, and the names of all nodes.
    """

    def __init__(
        self,
        name: str,
        platform_grpc: str,
        build_report: Callable[[], control_plane_pb2.MemberReport],
        measure: Callable[[str, str], Awaitable[LinkMeasurement | None]],
        on_reply: Callable[[control_plane_pb2.ReportReply, frozenset[str]], Awaitable[None]],
        identity: GrpcIdentity | None = None,
    ) -> None:
        self._name = name
        self._platform_grpc = platform_grpc
        self._build_report = build_report
        self._measure = measure
        self._on_reply = on_reply
        self._channels = Channels(identity)
        self._mutual_tls = identity is not None
        self._tasks = BackgroundTasks()
        self._links: dict[str, LinkMeasurement] = {}
        self._peers: dict[str, str] = {}
        self._interval_s = 1.0
        self.expelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set with the reason when the platform stops taking this member's reports."""

    async def join(self, wait_s: float) -> None:
        """Sends the first report, waiting up to `wait_s` for the platform, then reports in the background.

        Raises:
            JoinError: no platform answers, or it has a live member of this name.
        """
        give_up = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                await self._report(leaving=False)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() in _FINAL:
                    raise JoinError(error.details() or error.code().name) from error
                if asyncio.get_running_loop().time() >= give_up:
                    how = f" over mutual TLS with this certificate ({error.details()})" if self._mutual_tls else ""
                    raise JoinError(
                        f"no platform answers at {self._platform_grpc}{how}; start one with `mec serve` or name it with "
                        "--platform-grpc"
                    ) from error
                await asyncio.sleep(0.25)
        self._tasks.start("reports", self._keep_reporting())
        self._tasks.start("link probes", self._keep_measuring())

    async def leave(self) -> None:
        """Tells the platform that this member stops, as far as it can be reached."""
        await self._tasks.stop()
        try:
            await self._report(leaving=True)
        except grpc.aio.AioRpcError as error:
            _log.info("could not sign off at %s: %s", self._platform_grpc, error.details())
        await self._channels.close()

    async def report_failure(self, member: str, reason: str) -> None:
        """Tells the platform that a member seems to have failed; best effort, its own reports tell too."""
        failure = control_plane_pb2.FailureReport(reporter=self._name, member=member, reason=reason)
        try:
            stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(self._channels.to(self._platform_grpc))
            await stub.ReportFailure(failure, timeout=REPORT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _log.warning("could not report the failure of %s: %s", member, error.details())

    async def _report(self, *, leaving: bool) -> control_plane_pb2.ReportReply:
        report = self._build_report()
        report.leaving = leaving
        report.links.extend(_estimates(list(self._links.values())))
        stub = control_plane_pb2_grpc.CapacityProfilerStub(self._channels.to(self._platform_grpc))
        reply = await stub.Report(report, timeout=REPORT_TIMEOUT_S)
        self._interval_s = min(max(reply.next_report_s, 0.1), 10.0)
        self._peers = {
            member.name: member.address
            for member in reply.members
            if member.role == control_plane_pb2.MEMBER_ROLE_NODE and member.name != self._name
        }
        return reply

    async def _keep_reporting(self) -> None:
        reachable = True
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                reply = await self._report(leaving=False)
                if not reachable:
                    _log.warning("platform at %s answers again", self._platform_grpc)
                reachable = True
                await self._on_reply(reply, frozenset(self._peers))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                    self.expelled.set_result(error.details() or "expelled")
                    return
                if reachable:
                    _log.warning(
                        "platform at %s does not answer; serving goes on: %s", self._platform_grpc, error.details()
                    )
                reachable = False

    async def _keep_measuring(self) -> None:
        while True:
            peers = dict(self._peers)
            await asyncio.gather(*(self._measure_one(name, address) for name, address in peers.items()))
            for gone in self._links.keys() - self._peers.keys():
                del self._links[gone]
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _measure_one(self, name: str, address: str) -> None:
        measurement = await self._measure(name, address)
        if measurement is None:
            self._links.pop(name, None)
        else:
            self._links[name] = measurement


def _estimates(links: Sequence[LinkMeasurement]) -> list[types_pb2.LinkEstimate]:
    return [
        types_pb2.LinkEstimate(
            peer=link.peer,
            bytes_per_s=link.bytes_per_s,
            round_trip_ms=link.round_trip_s * 1e3,
            emulated=link.emulated,
        )
        for link in links
    ]
