"""gRPC `ReconfigurationBroadcast`: plans that operators apply, the committed plan, and what reconfigurations did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import grpc
import grpc.aio

from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationAborted, ReconfigurationEnded
from mec_platform.control_plane.selection import Selection, select_deployment
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.registry.errors import LogUnavailable
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2


class PlanControl(Protocol):
    """What the service needs of a deployment's control loop."""

    def plan_of(self, chain: int | None) -> SplitPlan | None: ...

    def addresses(self) -> Mapping[str, str]: ...

    async def apply_stages(
        self, stages: Sequence[Stage], reason: str, chain: int | None = None, *, add: bool = False
    ) -> ReconfigurationEnded: ...

    async def drop_chain(self, chain: int, reason: str) -> ReconfigurationEnded: ...

    async def abort(self, chain: int | None, reason: str) -> ReconfigurationEnded: ...

    def watch_reconfigurations(self) -> AsyncIterator[ReconfigurationEnded]: ...


class ReconfigurationBroadcastService(control_plane_pb2_grpc.ReconfigurationBroadcastServicer):
    """The servicer."""

    def __init__(self, deployments: Selection[PlanControl]) -> None:
        self._deployments = deployments

    async def ApplyPlan(
        self, request: control_plane_pb2.ApplyPlanRequest, context: Context
    ) -> control_plane_pb2.Reconfiguration:
        control = await select_deployment(self._deployments, request.model, context)
        try:
            stages = [Stage(stage.node, LayerRange(stage.layers.start, stage.layers.stop)) for stage in request.stages]
            chain = request.chain if request.HasField("chain") else None
            if request.add_chain and chain is not None:
                raise PlanRejected("a chain that is added gets its number from the platform; leave `chain` out")
            ended = await control.apply_stages(stages, request.reason, chain, add=request.add_chain)
        except (ValueError, PlanRejected) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ReconfigurationAborted as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except LogUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return _message(ended, control.addresses())

    async def DropChain(
        self, request: control_plane_pb2.DropChainRequest, context: Context
    ) -> control_plane_pb2.Reconfiguration:
        control = await select_deployment(self._deployments, request.model, context)
        try:
            ended = await control.drop_chain(request.chain, request.reason)
        except PlanRejected as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ReconfigurationAborted as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except LogUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return _message(ended, control.addresses())

    async def AbortReconfiguration(
        self, request: control_plane_pb2.AbortReconfigurationRequest, context: Context
    ) -> control_plane_pb2.Reconfiguration:
        control = await select_deployment(self._deployments, request.model, context)
        try:
            ended = await control.abort(request.chain if request.HasField("chain") else None, request.reason)
        except PlanRejected as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except LogUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return _message(ended, control.addresses())

    async def GetPlan(self, request: control_plane_pb2.GetPlanRequest, context: Context) -> types_pb2.SplitPlan:
        control = await select_deployment(self._deployments, request.model, context)
        chain = request.chain if request.HasField("chain") else None
        plan = control.plan_of(chain)
        if plan is None:
            what = "no plan has been committed yet" if chain is None else f"there is no chain {chain}"
            await context.abort(grpc.StatusCode.NOT_FOUND, what)
        return plan_to_message(plan, control.addresses())

    async def WatchReconfigurations(
        self, request: control_plane_pb2.WatchReconfigurationsRequest, context: Context
    ) -> AsyncIterator[control_plane_pb2.Reconfiguration]:
        control = await select_deployment(self._deployments, request.model, context)
        async for ended in control.watch_reconfigurations():
            yield _message(ended, control.addresses())


def _message(ended: ReconfigurationEnded, addresses: Mapping[str, str]) -> control_plane_pb2.Reconfiguration:
    return control_plane_pb2.Reconfiguration(
        plan=plan_to_message(ended.plan, addresses),
        kind=ended.kind,
        reason=ended.reason,
        outcome=ended.outcome,
        error=ended.error,
        prepare_ms=ended.prepare_ms,
        switch_ms=ended.total_ms,
        pause_ms_max=ended.pause_ms_max,
        moved_bytes=ended.moved_bytes,
        sessions=ended.sessions,
        replayed_tokens=ended.replayed_tokens,
        at_s=ended.at_s,
        transfer=ended.transfer,
        held_ms_max=ended.held_ms_max,
        tail_positions_max=ended.tail_positions_max,
    )
