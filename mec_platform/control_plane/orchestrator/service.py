"""gRPC `AdaptiveOrchestrator`: failure reports in, decisions out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol, assert_never

import grpc
import grpc.aio

from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Wait,
    decision_kind,
)
from mec_platform.control_plane.selection import Selection, select_deployment
from mec_platform.domain.failures import Failure
from mec_platform.rpc.convert import failure_kind_from_message, plan_to_message
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc


class Decided(Protocol):
    """A decision and when it was made."""

    @property
    def at_s(self) -> float: ...

    @property
    def decision(self) -> Decision: ...


class DecisionSource(Protocol):
    """What the service needs of a deployment's control loop."""

    def addresses(self) -> Mapping[str, str]: ...

    def watch_decisions(self) -> AsyncIterator[Decided]: ...


class DecisionSources(Selection[DecisionSource], Protocol):
    """All deployments."""

    def fail_member(self, name: str, failure: Failure) -> None: ...


class AdaptiveOrchestratorService(control_plane_pb2_grpc.AdaptiveOrchestratorServicer):
    """The servicer."""

    def __init__(self, deployments: DecisionSources) -> None:
        self._deployments = deployments

    async def ReportFailure(
        self, request: control_plane_pb2.FailureReport, context: Context
    ) -> control_plane_pb2.FailureReply:
        if not request.member or request.member == request.reporter:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "member: the name of another member is needed")
        detail = f"{request.reason or 'no reason given'} (says {request.reporter or 'a member'})"
        self._deployments.fail_member(request.member, Failure(failure_kind_from_message(request.kind), detail))
        return control_plane_pb2.FailureReply()

    async def WatchDecisions(
        self, request: control_plane_pb2.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[control_plane_pb2.Decision]:
        source = await select_deployment(self._deployments, request.model, context)
        async for made in source.watch_decisions():
            yield _message(made, source.addresses())


def _message(made: Decided, addresses: Mapping[str, str]) -> control_plane_pb2.Decision:
    decision = made.decision
    message = control_plane_pb2.Decision(at_s=made.at_s, kind=decision_kind(decision), reason=decision.reason)
    if isinstance(decision, Wait):
        return message
    message.plan.CopyFrom(plan_to_message(decision.plan, addresses))
    if not isinstance(decision, Keep):
        message.trigger = decision.trigger
    match decision:
        case Keep():
            message.cost_ms = message.current_cost_ms = decision.cost_ms
        case Reconfigure():
            message.cost_ms = decision.cost_ms
            message.current_cost_ms = decision.current_cost_ms or 0.0
            message.switch_cost_ms = decision.switch_cost_ms
        case AddChain():
            message.cost_ms = decision.cost_ms
        case DropChain():
            pass
        case Shed():
            if decision.session_limit is not None:
                message.session_limit = decision.session_limit
        case _:
            assert_never(decision)
    return message
