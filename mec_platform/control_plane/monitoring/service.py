"""gRPC `CapacityProfiler`: takes streams of reports in, gives snapshots out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import grpc
import grpc.aio

from mec_platform.control_plane.monitoring.estimates import MemberReported, Refusal
from mec_platform.control_plane.monitoring.radio_forecast import RadioState
from mec_platform.control_plane.monitoring.report_messages import ReportReader, problem_of, radio_to_message
from mec_platform.control_plane.selection import Selection, select_deployment
from mec_platform.control_plane.standing import Standing
from mec_platform.domain.capacity import Snapshot
from mec_platform.identity.call_gate import caller_of
from mec_platform.identity.names import Grant
from mec_platform.rpc.convert import held_to_messages, snapshot_to_message
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc

REPORT_INTERVAL_S = 1.0
PEERS_KEPT_S = 0.25
"""Who is there is looked up this often for all streams together, not for each report of each of them."""

_ROLES = {control_plane_pb2.MEMBER_ROLE_NODE: Grant.NODE, control_plane_pb2.MEMBER_ROLE_GATEWAY: Grant.GATEWAY}
_log = logging.getLogger(__name__)

WATCH_INTERVAL_S = 1.0
SHORTEST_WATCH_S = 0.1


class Monitor(Protocol):
    """What the service needs of a deployment's control loop."""

    def observe(self) -> Snapshot: ...

    def standing(self, member: str) -> Standing: ...

    def radio(self) -> RadioState: ...


class Monitors(Selection[Monitor], Protocol):
    """All deployments."""

    @property
    def names(self) -> Sequence[str]: ...

    def take_report(self, event: MemberReported) -> Refusal | None: ...

    def of_report(self, event: MemberReported) -> Monitor | None: ...

    def take_broken_stream(self, name: str, address: str) -> None: ...


@dataclass(slots=True)
class _Peers:
    """Who was there at `at_s`; `members` stays the same object while nobody comes or goes."""

    at_s: float
    members: list[control_plane_pb2.Member] = field(default_factory=list)


@dataclass(slots=True)
class _Told:
    """What a member's reports say for people only: its load, and of its links which are emulated or measured passively."""

    report: control_plane_pb2.MemberReport
    emulated: dict[str, bool] = field(default_factory=dict)
    passive: dict[str, bool] = field(default_factory=dict)

    def take(self, report: control_plane_pb2.MemberReport) -> None:
        if report.HasField("load"):  # a gateway reports to its encoder's deployment too, without
            self.report = report
        for link in report.links:
            self.emulated[link.peer] = link.emulated
            if link.bytes_per_s > 0:
                self.passive[link.peer] = link.passive

    def add_to(self, member: control_plane_pb2.MemberReport) -> None:
        member.emulated, member.ue = self.report.emulated, self.report.ue
        if self.report.HasField("load"):
            member.load.CopyFrom(self.report.load)
        for link in member.links:
            link.emulated = self.emulated.get(link.peer, False)
            link.passive = self.passive.get(link.peer, False)


class CapacityProfilerService(control_plane_pb2_grpc.CapacityProfilerServicer):
    """The servicer."""

    def __init__(self, deployments: Monitors) -> None:
        self._deployments = deployments
        self._told: dict[str, _Told] = {}
        self._peers: dict[Monitor, _Peers] = {}

    async def Report(
        self, request_iterator: AsyncIterator[control_plane_pb2.MemberReport], context: Context
    ) -> AsyncIterator[control_plane_pb2.ReportReply]:
        reader, told, name, address, leaving = ReportReader(), None, "", "", False
        try:
            async for report in request_iterator:
                monitor, event = await self._take(report, reader, context)
                name, address, leaving = event.name, event.address, event.leaving
                members = self._members_of(monitor, event.at_s)
                reply = _reply(monitor.standing(name))
                if members is told:
                    reply.same_members = True
                else:
                    reply.members.extend(members)
                told = members
                yield reply
        finally:
            self._told.pop(name, None)
            if name and not leaving:
                self._deployments.take_broken_stream(name, address)

    async def GetSnapshot(
        self, request: control_plane_pb2.GetSnapshotRequest, context: Context
    ) -> control_plane_pb2.Snapshot:
        monitor = await select_deployment(self._deployments, request.model, context)
        return self._message(monitor, monitor.observe())

    async def Watch(
        self, request: control_plane_pb2.WatchSnapshotsRequest, context: Context
    ) -> AsyncIterator[control_plane_pb2.Snapshot]:
        monitor = await select_deployment(self._deployments, request.model, context)
        interval_s = max(request.interval_s or WATCH_INTERVAL_S, SHORTEST_WATCH_S)
        told: Snapshot | None = None
        while True:
            seen = monitor.observe()
            # What has not changed are the same objects, so this looks at little of a large world.
            if told is None or replace(seen, now_s=told.now_s) != told:
                told = seen
                yield self._message(monitor, seen)
            await asyncio.sleep(interval_s)

    async def ListDeployments(
        self, request: control_plane_pb2.ListDeploymentsRequest, context: Context
    ) -> control_plane_pb2.ListDeploymentsReply:
        return control_plane_pb2.ListDeploymentsReply(models=self._deployments.names)

    async def _take(
        self, report: control_plane_pb2.MemberReport, reader: ReportReader, context: Context
    ) -> tuple[Monitor, MemberReported]:
        """The deployment that a report belongs to, once it was taken; aborts the stream where it is not."""
        problem = problem_of(report)
        if problem is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        caller = caller_of(context)
        if caller is not None:
            await self._cut_down(report, caller.grants, context)
        try:
            event = reader.read(report, asyncio.get_running_loop().time())
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        refusal, monitor = self._deployments.take_report(event), self._deployments.of_report(event)
        if refusal is not None or monitor is None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "" if refusal is None else refusal.reason)
        self._told.setdefault(report.name, _Told(report)).take(report)
        return monitor, event

    async def _cut_down(
        self, report: control_plane_pb2.MemberReport, grants: frozenset[Grant], context: Context
    ) -> None:
        """A member is what its certificate grants it to be, whatever it reports: aborts the stream of one that is another."""
        role = _ROLES[report.role]
        if role not in grants:
            refusal = f"{report.name} reports as a {role}, and its certificate does not grant it to be one"
            _log.warning("refused: %s", refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if report.trusted and role is Grant.NODE and Grant.TRUSTED not in grants:
            if report.name not in self._told:  # the first report of its stream
                _log.warning("%s says that it is trusted, and its certificate does not: it is not", report.name)
            report.trusted = False

    def _members_of(self, monitor: Monitor, now_s: float) -> list[control_plane_pb2.Member]:
        known = self._peers.get(monitor)
        if known is not None and now_s - known.at_s < PEERS_KEPT_S:
            return known.members
        seen = monitor.observe()
        nodes, gateways = control_plane_pb2.MEMBER_ROLE_NODE, control_plane_pb2.MEMBER_ROLE_GATEWAY
        members = [control_plane_pb2.Member(name=n.name, address=n.address, role=nodes) for n in seen.nodes]
        members += [control_plane_pb2.Member(name=g.name, address=g.address, role=gateways) for g in seen.gateways]
        if known is not None and members == known.members:
            known.at_s = now_s
        else:
            known = self._peers[monitor] = _Peers(now_s, members)
        return known.members

    def _message(self, monitor: Monitor, seen: Snapshot) -> control_plane_pb2.Snapshot:
        message = snapshot_to_message(seen)
        for member in message.members:
            told = self._told.get(member.name)
            if told is not None:
                told.add_to(member)
        for name, ue in monitor.radio().ues.items():
            message.radio.append(radio_to_message(name, ue, seen.now_s))
        return message


def _reply(standing: Standing) -> control_plane_pb2.ReportReply:
    limit = standing.limit
    return control_plane_pb2.ReportReply(
        plan_epoch=standing.epoch,
        living_epoch=standing.living_epoch,
        held=held_to_messages(standing.held),
        next_report_s=REPORT_INTERVAL_S,
        chains=[control_plane_pb2.ChainEpoch(chain=c.chain, epoch=c.epoch, dropped=c.dropped) for c in standing.chains],
        max_sessions=None if limit is None else limit.max_sessions,
        max_sessions_reason="" if limit is None else limit.reason,
    )
