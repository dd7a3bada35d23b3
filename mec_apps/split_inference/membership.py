"""How a node or gateway belongs to the platform: a stream of reports, one a second, with what its links were measured at.

A stream that breaks is opened again, after pauses that grow to two seconds, for as long as the member lives: a platform
that restarts finds its members again. What was measured meanwhile is told then, with its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio

from mec_apps.split_inference.peer_link import LinkMeasurement
from mec_platform.background import BackgroundTasks
from mec_platform.domain.errors import MendableError
from mec_platform.domain.failures import Failure
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.convert import failure_kind_to_message
from mec_platform.rpc.endpoints import Channels
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

REPORT_TIMEOUT_S = 2.0
MEASURE_EVERY_S = 1.0
UNUSED_EVERY = 2
"""Links that nothing of a plan travels on are measured every so many times."""

MOST_PEERS = 32
"""Peers whose links are measured, beside those in use; in larger deployments members of two sites measure for all of them."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
REFUSALS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""What the platform means for good: another try would be refused as well."""

TAKEN_WAIT_S = 5.0
"""A process of the same name that has died is missed within this time: one that is started in its place waits so long."""

_log = logging.getLogger(__name__)


class JoinError(MendableError):
    """The platform cannot be reached or does not take this member; the message says what to do."""


class StreamEnded(Exception):
    """A stream of reports ended or does not answer; `code` is CANCELLED where the platform closed it without a word."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ReportStream:
    """One stream, from its opening to its end: each report is answered before the next one."""

    def __init__(self, profiler: control_plane_pb2_grpc.CapacityProfilerAsyncStub) -> None:
        self._call = profiler.Report()

    async def exchange(self, report: control_plane_pb2.MemberReport) -> control_plane_pb2.ReportReply:
        """Sends a report and returns what it is answered with. Raises StreamEnded; the stream is then of no more use."""
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                with contextlib.suppress(asyncio.InvalidStateError):  # it has ended, and `read` says how
                    await self._call.write(report)
                reply = await self._call.read()
                if isinstance(reply, control_plane_pb2.ReportReply):
                    return reply
                code, details = await self._call.code(), await self._call.details()
        except TimeoutError as error:
            self.close()
            reason = f"no answer within {REPORT_TIMEOUT_S:g} s"
            raise StreamEnded(grpc.StatusCode.DEADLINE_EXCEEDED, reason) from error
        except grpc.aio.AioRpcError as error:
            raise StreamEnded(error.code(), error.details() or error.code().name) from error
        raise StreamEnded(grpc.StatusCode.CANCELLED if code is grpc.StatusCode.OK else code, details or "closed")

    async def finish(self) -> None:
        """Ends the stream in order, when its last report has been answered."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def close(self) -> None:
        """Breaks the stream off."""
        self._call.cancel()


@dataclass(slots=True)
class _Known:
    """The latest measurements of a link and when they were made, and until when this stream has heard of them."""

    address: str
    emulated: bool = False
    passive: bool = False
    bytes_per_s: float = 0.0
    rate_at_s: float = 0.0
    round_trip_s: float = 0.0
    trip_at_s: float = 0.0
    told_until_s: float = 0.0

    def take(self, measured: LinkMeasurement, now_s: float) -> None:
        self.emulated = measured.emulated
        if measured.bytes_per_s > 0:
            self.bytes_per_s, self.rate_at_s, self.passive = measured.bytes_per_s, now_s, measured.passive
        if measured.round_trip_s > 0:
            self.round_trip_s, self.trip_at_s = measured.round_trip_s, now_s

    def tell(self, peer: str, now_s: float) -> Iterator[types_pb2.LinkEstimate]:
        """What has not been told yet; rate and round trip apart where they are not of one age."""
        rate = self.bytes_per_s if self.rate_at_s > self.told_until_s else 0.0
        trip = self.round_trip_s if self.trip_at_s > self.told_until_s else 0.0
        together = self.rate_at_s == self.trip_at_s
        if rate > 0:
            yield self._estimate(peer, rate, trip if together else 0.0, now_s - self.rate_at_s)
        if trip > 0 and not (rate > 0 and together):
            yield self._estimate(peer, 0.0, trip, now_s - self.trip_at_s)
        self.told_until_s = now_s

    def _estimate(self, peer: str, bytes_per_s: float, round_trip_s: float, age_s: float) -> types_pb2.LinkEstimate:
        return types_pb2.LinkEstimate(
            peer=peer,
            bytes_per_s=bytes_per_s,
            round_trip_ms=round_trip_s * 1e3,
            emulated=self.emulated,
            passive=self.passive,
            age_s=age_s,
        )


class Membership:
    """Reports what `build_report` gives with the links measured; `measure` tells what is new of the link to one peer.

    `on_reply` learns the platform's answer to each report, and the names of all nodes. Links to peers that are `in_use` are
    measured however many peers there are. The platform is spoken to as `identity`.
    """

    def __init__(
        self,
        name: str,
        platform_grpc: str,
        build_report: Callable[[], control_plane_pb2.MemberReport],
        measure: Callable[[str, str], Awaitable[LinkMeasurement | None]],
        on_reply: Callable[[control_plane_pb2.ReportReply, frozenset[str]], Awaitable[None]],
        in_use: Callable[[], frozenset[str]] = frozenset,
        identity: GrpcIdentity | None = None,
    ) -> None:
        self._name = name
        self._platform_grpc = platform_grpc
        self._build_report = build_report
        self._measure = measure
        self._on_reply = on_reply
        self._in_use = in_use
        self._channels = Channels(identity)
        self._mutual_tls = identity is not None
        self._tasks = BackgroundTasks()
        self._stream: ReportStream | None = None
        self._links: dict[str, _Known] = {}
        self._peers: dict[str, str] = {}
        self._interval_s = 1.0
        self.expelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set with the reason when the platform stops taking this member's reports."""

    async def join(self, wait_s: float) -> None:
        """Sends the first report, waiting up to `wait_s` for the platform, then reports in the background. Where the name is
        taken it waits up to TAKEN_WAIT_S of that for the one who has it.

        Raises:
            JoinError: no platform answers, or it has a live member of this name.
        """
        now = asyncio.get_running_loop().time
        give_up = now() + wait_s
        taken_until: float | None = None
        while True:
            try:
                await self._report(leaving=False)
                break
            except StreamEnded as ended:
                if ended.code is grpc.StatusCode.ALREADY_EXISTS and taken_until is None:
                    taken_until = min(now() + TAKEN_WAIT_S, give_up)
                    _log.warning("%s; waiting up to %g s, in case that one has just died", ended, TAKEN_WAIT_S)
                waits = ended.code is grpc.StatusCode.ALREADY_EXISTS and now() < (taken_until or 0.0)
                if ended.code in REFUSALS and not waits:
                    raise JoinError(str(ended)) from ended
                if now() >= give_up:
                    how = f" over mutual TLS with this certificate ({ended})" if self._mutual_tls else ""
                    raise JoinError(
                        f"no platform answers at {self._platform_grpc}{how}; start one with `mec serve` or name it with "
                        "--platform-grpc"
                    ) from ended
                await asyncio.sleep(FIRST_PAUSE_S)
        self._tasks.start("reports", self._keep_reporting())
        self._tasks.start("link measurements", self._keep_measuring())

    async def leave(self) -> None:
        """Tells the platform that this member stops, as far as it can be reached."""
        await self._tasks.stop()
        try:
            await self._report(leaving=True)
        except StreamEnded as ended:
            _log.info("could not sign off at %s: %s", self._platform_grpc, ended)
        if self._stream is not None:
            await self._stream.finish()
        await self._channels.close()

    async def report_failure(self, member: str, seen: Failure) -> None:
        """Tells the platform that a member seems to have failed; best effort, its own reports tell too."""
        kind = failure_kind_to_message(seen.kind)
        failure = control_plane_pb2.FailureReport(reporter=self._name, member=member, reason=seen.detail, kind=kind)
        try:
            stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(self._channels.to(self._platform_grpc))
            await stub.ReportFailure(failure, timeout=REPORT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _log.warning("could not report the failure of %s: %s", member, error.details())

    async def _report(self, *, leaving: bool) -> control_plane_pb2.ReportReply:
        """One report and its answer, on a new stream where there is none. Raises StreamEnded."""
        stream = self._stream
        if stream is None:
            channel = self._channels.to(self._platform_grpc)
            stream = self._stream = ReportStream(control_plane_pb2_grpc.CapacityProfilerStub(channel))
            for link in self._links.values():
                link.told_until_s = 0.0
        report = self._build_report()
        report.leaving = leaving
        now_s = time.monotonic()
        report.links.extend(news for peer, link in self._links.items() for news in link.tell(peer, now_s))
        try:
            reply = await stream.exchange(report)
        except StreamEnded:
            self._stream = None
            raise
        except asyncio.CancelledError:
            stream.close()  # its answer would be taken for that of the next report
            self._stream = None
            raise
        self._interval_s = min(max(reply.next_report_s, 0.1), 10.0)
        if not reply.same_members:
            self._peers = {
                member.name: member.address
                for member in reply.members
                if member.role == control_plane_pb2.MEMBER_ROLE_NODE and member.name != self._name
            }
        return reply

    async def _keep_reporting(self) -> None:
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s or self._interval_s)
            try:
                reply = await self._report(leaving=False)
            except StreamEnded as ended:
                if ended.code is grpc.StatusCode.ALREADY_EXISTS:
                    self.expelled.set_result(str(ended) or "expelled")
                    return
                if not pause_s:
                    _log.warning("platform at %s does not answer; serving goes on: %s", self._platform_grpc, ended)
                pause_s = min(2 * pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
                continue
            if pause_s:
                _log.warning("platform at %s answers again", self._platform_grpc)
            pause_s = 0.0
            try:
                await self._on_reply(reply, frozenset(self._peers))
            except grpc.aio.AioRpcError as error:
                _log.warning("could not follow the platform's answer: %s", error.details())

    async def _keep_measuring(self) -> None:
        for number in itertools.count():
            peers, in_use = self._measured_peers(), self._in_use()
            now = peers if number % UNUSED_EVERY == 0 else peers.keys() & in_use
            await asyncio.gather(*(self._measure_one(name, peers[name]) for name in now))
            for gone in self._links.keys() - peers.keys():
                del self._links[gone]
            await asyncio.sleep(MEASURE_EVERY_S)

    def _measured_peers(self) -> dict[str, str]:
        """Addresses of the peers to measure: a choice that is each member's own and stays the same."""
        ranked = sorted(self._peers, key=lambda peer: zlib.crc32(f"{self._name} {peer}".encode()))
        chosen = {*ranked[:MOST_PEERS], *(self._in_use() & self._peers.keys())}
        return {peer: self._peers[peer] for peer in chosen}

    async def _measure_one(self, name: str, address: str) -> None:
        measured = await self._measure(name, address)
        if measured is None:
            self._links.pop(name, None)
            return
        known = self._links.get(name)
        if known is None or known.address != address:
            known = self._links[name] = _Known(address)
        known.take(measured, time.monotonic())
