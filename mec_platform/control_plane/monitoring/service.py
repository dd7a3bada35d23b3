"""gRPC `CapacityProfiler`: takes reports in, gives the snapshot out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from mec_platform.control_plane.monitoring.estimates import MemberReported, Refusal
from mec_platform.control_plane.selection import Selection, select_deployment
from mec_platform.control_plane.standing import Standing
from mec_platform.domain.capacity import Snapshot
from mec_platform.rpc.convert import (
    hardware_from_message,
    profile_from_message,
    shape_from_message,
    snapshot_to_message,
)
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc

REPORT_INTERVAL_S = 1.0
MAX_NAME = 128
MAX_LINKS = 2048
"""A member probes its links to all nodes of its deployment."""

MAX_REPORT_BYTES = 512 << 10
LARGEST_NUMBER = 1e15
"""Beyond any time, rate or size of a member; sums of such numbers stay finite."""

_NUMBERS = ("block_time_us", "head_time_us", "prefill_block_time_us_per_row", "tokens_per_s", "profile_ratio")


class Monitor(Protocol):
    """What the service needs of a deployment's control loop."""

    def observe(self) -> Snapshot: ...

    def standing(self, member: str) -> Standing: ...


class Monitors(Selection[Monitor], Protocol):
    """All deployments."""

    @property
    def names(self) -> Sequence[str]: ...

    def take_report(self, event: MemberReported) -> Refusal | None: ...

    def of_report(self, event: MemberReported) -> Monitor | None: ...


class CapacityProfilerService(control_plane_pb2_grpc.CapacityProfilerServicer):
    """The servicer."""

    def __init__(self, deployments: Monitors) -> None:
        self._deployments = deployments
        self._emulated: dict[str, set[str]] = {}

    async def Report(self, request: control_plane_pb2.MemberReport, context: Context) -> control_plane_pb2.ReportReply:
        problem = _problem(request)
        if problem is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        try:
            event = _event(request, asyncio.get_running_loop().time())
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        refusal, monitor = self._deployments.take_report(event), self._deployments.of_report(event)
        if refusal is not None or monitor is None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "" if refusal is None else refusal.reason)
        if request.emulated:
            self._emulated[request.name] = {link.peer for link in request.links if link.emulated}
        seen = monitor.observe()
        members = [
            control_plane_pb2.Member(name=node.name, address=node.address, role=control_plane_pb2.MEMBER_ROLE_NODE)
            for node in seen.nodes
        ]
        members += [
            control_plane_pb2.Member(name=g.name, address=g.address, role=control_plane_pb2.MEMBER_ROLE_GATEWAY)
            for g in seen.gateways
        ]
        return _reply(monitor.standing(event.name), members)

    async def GetSnapshot(
        self, request: control_plane_pb2.GetSnapshotRequest, context: Context
    ) -> control_plane_pb2.Snapshot:
        monitor = await select_deployment(self._deployments, request.model, context)
        message = snapshot_to_message(monitor.observe())
        for member in message.members:
            member.emulated = member.name in self._emulated
            for link in member.links:
                link.emulated = link.peer in self._emulated.get(member.name, ())
        return message

    async def ListDeployments(
        self, request: control_plane_pb2.ListDeploymentsRequest, context: Context
    ) -> control_plane_pb2.ListDeploymentsReply:
        return control_plane_pb2.ListDeploymentsReply(models=self._deployments.names)


def _problem(report: control_plane_pb2.MemberReport) -> str | None:
    if not report.name or len(report.name) > MAX_NAME:
        return f"name: 1 to {MAX_NAME} characters are needed"
    if report.role not in (control_plane_pb2.MEMBER_ROLE_NODE, control_plane_pb2.MEMBER_ROLE_GATEWAY):
        return "role: MEMBER_ROLE_NODE or MEMBER_ROLE_GATEWAY is needed"
    if not report.address or not report.incarnation:
        return "address and incarnation are needed"
    if report.ByteSize() > MAX_REPORT_BYTES or len(report.links) > MAX_LINKS:
        return f"a report has {MAX_LINKS} links and {MAX_REPORT_BYTES} bytes at most"
    numbers = [getattr(report, name) for name in _NUMBERS]
    numbers += [number for link in report.links for number in (link.bytes_per_s, link.round_trip_ms)]
    if not all(0 <= number <= LARGEST_NUMBER for number in numbers):  # not a number is neither
        return "times and rates must be numbers that are not negative"
    return None


def _reply(standing: Standing, members: Sequence[control_plane_pb2.Member]) -> control_plane_pb2.ReportReply:
    limit = standing.limit
    return control_plane_pb2.ReportReply(
        plan_epoch=standing.epoch,
        next_report_s=REPORT_INTERVAL_S,
        members=members,
        chains=[control_plane_pb2.ChainEpoch(chain=c.chain, epoch=c.epoch, dropped=c.dropped) for c in standing.chains],
        max_sessions=None if limit is None else limit.max_sessions,
        max_sessions_reason="" if limit is None else limit.reason,
    )


def _event(report: control_plane_pb2.MemberReport, at_s: float) -> MemberReported:
    """Raises ValueError where the report carries a cost profile that is none."""
    return MemberReported(
        at_s=at_s,
        role="node" if report.role == control_plane_pb2.MEMBER_ROLE_NODE else "gateway",
        name=report.name,
        address=report.address,
        incarnation=report.incarnation,
        trusted=report.trusted,
        hardware=hardware_from_message(report.hardware),
        model=shape_from_message(report.model) if report.HasField("model") else None,
        memory_bytes=report.memory_bytes,
        block_time_s=report.block_time_us / 1e6,
        head_time_s=report.head_time_us / 1e6,
        prefill_block_time_s_per_row=report.prefill_block_time_us_per_row / 1e6,
        sessions=report.sessions,
        tokens_per_s=report.tokens_per_s,
        context_positions=report.context_positions,
        links=tuple((link.peer, link.bytes_per_s, link.round_trip_ms / 1e3) for link in report.links),
        leaving=report.leaving,
        profile=profile_from_message(report.profile) if report.HasField("profile") else None,
        profile_ratio=report.profile_ratio,
    )
