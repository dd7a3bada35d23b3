"""gRPC `SplitRevision`: the best plan for the world as it is, with its explanation; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import grpc
import grpc.aio

from mec_platform.control_plane.selection import Selection, select_deployment
from mec_platform.control_plane.split_revision.explanation import explain_plan
from mec_platform.control_plane.split_revision.search import NoPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc


class World(Protocol):
    """What the service needs of a deployment's control loop."""

    def observe(self) -> Snapshot: ...

    def addresses(self) -> Mapping[str, str]: ...

    def plan_settings(self) -> PlanSettings: ...


class SplitRevisionService(control_plane_pb2_grpc.SplitRevisionServicer):
    """The servicer."""

    def __init__(self, deployments: Selection[World]) -> None:
        self._deployments = deployments

    async def ProposePlan(
        self, request: control_plane_pb2.ProposePlanRequest, context: Context
    ) -> control_plane_pb2.ProposePlanReply:
        world = await select_deployment(self._deployments, request.model, context)
        seen, settings = world.observe(), world.plan_settings()
        found = best_plan(seen, settings, frozenset(request.exclude_nodes))
        if isinstance(found, NoPlan):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, found.reason)
        return control_plane_pb2.ProposePlanReply(
            plan=plan_to_message(found.plan, world.addresses()),
            cost_ms=found.cost.total_ms,
            latency_ms=found.cost.latency_ms,
            explanation=[
                *explain_plan(found.plan, seen, settings, found.gap),
                *(f"beside it, chain {replica.chain}: {replica.describe()}" for replica in seen.replicas),
            ],
        )
