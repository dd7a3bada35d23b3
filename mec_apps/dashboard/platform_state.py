"""What the dashboard shows, fetched from the platform over gRPC as any client would."""

from __future__ import annotations

from collections import deque
from typing import Any

import grpc.aio
from aiohttp import web

from mec_platform.background import BackgroundTasks
from mec_platform.identity.grpc_identity import GrpcIdentity
from mec_platform.rpc.endpoints import open_member_channel
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

RECENT = 30


class PlatformState:
    """Reads the snapshot when asked and follows decisions and reconfigurations from the first question on.

    Of several deployments it shows the one that came up first.
    """

    def __init__(self, platform_grpc: str, identity: GrpcIdentity | None = None) -> None:
        self._platform_grpc = platform_grpc
        self._identity = identity
        self._channel: grpc.aio.Channel | None = None
        self._model = ""
        self._following = False
        self._tasks = BackgroundTasks()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._reconfigurations: deque[dict[str, Any]] = deque(maxlen=RECENT)

    async def read(self) -> dict[str, Any]:
        """The state in the shape that the page expects. Raises AioRpcError where the platform does not answer."""
        if self._channel is None:
            self._channel = open_member_channel(self._platform_grpc, self._identity)
        if self._model == "":
            self._model = await _first_deployment(self._channel)
        if not self._following:
            self._following = True
            self._tasks.start("dashboard decisions", self._follow_decisions(self._channel))
            self._tasks.start("dashboard reconfigurations", self._follow_reconfigurations(self._channel))
        stub = control_plane_pb2_grpc.CapacityProfilerStub(self._channel)
        snapshot = await stub.GetSnapshot(control_plane_pb2.GetSnapshotRequest(model=self._model), timeout=2)
        return {
            **_world(snapshot),
            "decisions": list(self._decisions),
            "reconfigurations": list(self._reconfigurations),
        }

    async def close(self, _app: web.Application | None = None) -> None:
        """Stops following."""
        await self._tasks.stop()
        if self._channel is not None:
            await self._channel.close()

    async def _follow_decisions(self, channel: grpc.aio.Channel) -> None:
        stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(channel)
        async for decision in stub.WatchDecisions(control_plane_pb2.WatchDecisionsRequest(model=self._model)):
            entry = {"at_s": decision.at_s, "kind": decision.kind, "reason": decision.reason}
            if self._decisions and self._decisions[0]["kind"] == decision.kind == "keep":
                self._decisions.popleft()  # of a steady world only the latest word is shown
            self._decisions.appendleft(entry)

    async def _follow_reconfigurations(self, channel: grpc.aio.Channel) -> None:
        stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
        async for done in stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest(model=self._model)):
            self._reconfigurations.appendleft(
                {
                    "at_s": done.at_s,
                    "kind": done.kind,
                    "reason": done.reason,
                    "outcome": done.outcome,
                    "pause_ms_max": done.pause_ms_max,
                    "moved_bytes": done.moved_bytes,
                }
            )


async def _first_deployment(channel: grpc.aio.Channel) -> str:
    """Its model; "" while there is none, which stands for the first one to come."""
    stub = control_plane_pb2_grpc.CapacityProfilerStub(channel)
    deployed = await stub.ListDeployments(control_plane_pb2.ListDeploymentsRequest(), timeout=2)
    return deployed.models[0] if deployed.models else ""


def _chain(plan: types_pb2.SplitPlan) -> dict[str, Any]:
    stages, standbys = (
        [{"node": each.node, "start": each.layers.start, "stop": each.layers.stop} for each in part]
        for part in (plan.stages, plan.standbys)
    )
    return {"chain": plan.chain, "epoch": plan.epoch, "stages": stages, "standbys": standbys}


def _world(snapshot: control_plane_pb2.Snapshot) -> dict[str, Any]:
    nodes = [m for m in snapshot.members if m.role == control_plane_pb2.MEMBER_ROLE_NODE]
    gateways = [m for m in snapshot.members if m.role == control_plane_pb2.MEMBER_ROLE_GATEWAY]
    plan = snapshot.plan if snapshot.HasField("plan") else None
    return {
        "now_s": snapshot.now_s,
        "model": {"name": nodes[0].model.name, "blocks": nodes[0].model.blocks} if nodes else None,
        "plan": None if plan is None else _chain(plan),
        "replicas": [_chain(replica) for replica in snapshot.replicas],
        "nodes": [
            {
                "name": node.name,
                "address": node.address,
                "trusted": node.trusted,
                "threads": node.hardware.threads,
                "target": node.hardware.compile_target,
                "memory_bytes": node.memory_bytes,
                "block_time_us": node.block_time_us,
                "sessions": node.sessions,
                "emulated": node.emulated,
            }
            for node in nodes
        ],
        "gateways": [{"name": g.name, "tokens_per_s": g.tokens_per_s, "sessions": g.sessions} for g in gateways],
        "links": [
            {
                "source": member.name,
                "target": link.peer,
                "bytes_per_s": link.bytes_per_s,
                "round_trip_ms": link.round_trip_ms,
                "emulated": link.emulated,
            }
            for member in snapshot.members
            for link in member.links
        ],
    }
