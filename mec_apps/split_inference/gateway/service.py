"""gRPC `Inference`: generation for gRPC clients, and the calls by which the control plane switches plans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

import grpc
import grpc.aio

from mec_apps.split_inference.gateway.answer import stream_answer
from mec_apps.split_inference.gateway.chat import ChatMessage, ChatTemplateError, ChatTokenizer
from mec_apps.split_inference.gateway.plan_switcher import OldPlan, PlanSwitcher
from mec_apps.split_inference.gateway.sessions import Sessions
from mec_apps.split_inference.generation import (
    ContextExceeded,
    GeneratedToken,
    GenerationError,
    NoPlan,
    NotAdmitted,
    Overloaded,
    SamplingSettings,
)
from mec_apps.split_inference.peer_link import LinkLost
from mec_platform.rpc.convert import addresses_from_message, held_from_messages, plan_from_message
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import inference_pb2, inference_pb2_grpc, types_pb2

_STATUS: dict[type[GenerationError], grpc.StatusCode] = {
    ContextExceeded: grpc.StatusCode.INVALID_ARGUMENT,
    NoPlan: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotAdmitted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Generation errors that are not INTERNAL."""


class InferenceService(inference_pb2_grpc.InferenceServicer):
    """The servicer of a gateway."""

    def __init__(
        self,
        sessions: Sessions,
        tokenizer: ChatTokenizer,
        switcher: PlanSwitcher,
        others: Mapping[str, PlanSwitcher] | None = None,
    ) -> None:
        """`others` switch the plans of other models than the sessions' own, by model."""
        self._sessions = sessions
        self._tokenizer = tokenizer
        self._switcher = switcher
        self._others = dict(others or {})

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateEvent]:
        problem = _problem(request)
        if problem is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        try:
            prompt = self._tokenizer.encode_chat([ChatMessage(m.role, m.content) for m in request.messages])
            max_tokens = request.max_tokens or max(1, self._sessions.context_length - len(prompt))
            sampling = SamplingSettings(request.temperature, request.top_p or 1.0, request.seed)
            async with aclosing(self._sessions.generate(prompt, max_tokens, sampling)) as tokens:
                last = GeneratedToken(0, 0, 0)

                async def remember() -> AsyncIterator[GeneratedToken]:
                    nonlocal last
                    async for generated in tokens:
                        last = generated
                        yield generated

                async for piece in stream_answer(remember(), self._tokenizer, (), max_tokens):
                    yield inference_pb2.GenerateEvent(
                        token=last.token,
                        text=piece.text,
                        epoch=piece.epoch,
                        finish_reason=piece.finish_reason or "",
                        token_ms=last.round_trip_s * 1e3,
                        compute_ms=last.compute_s * 1e3,
                    )
        except ChatTemplateError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except GenerationError as error:
            await context.abort(_STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error))

    async def ListSessions(
        self, request: inference_pb2.ListSessionsRequest, context: Context
    ) -> inference_pb2.ListSessionsReply:
        return inference_pb2.ListSessionsReply(
            sessions=[
                inference_pb2.SessionState(
                    session=session.id,
                    epoch=session.active.plan.epoch,
                    positions=len(session.tokens),
                    generated=session.generated,
                    state=session.state,
                    chain=session.active.plan.chain,
                )
                for session in self._sessions.live.values()
            ]
        )

    async def SwitchPlan(
        self, request: inference_pb2.SwitchPlanRequest, context: Context
    ) -> inference_pb2.SwitchPlanReply:
        try:
            reports = await self._switcher_of(request.plan).switch(
                plan_from_message(request.plan),
                addresses_from_message(request.plan),
                frozenset(request.lost_nodes),
                request.transfer_mode,
                request.replay_ms / 1e3,
            )
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OldPlan as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except LinkLost as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return inference_pb2.SwitchPlanReply(
            sessions=[
                inference_pb2.SessionSwitch(
                    session=report.session,
                    mode=report.mode,
                    pause_ms=report.pause_ms,
                    precopied_bytes=report.precopied_bytes,
                    paused_bytes=report.paused_bytes,
                    replayed_tokens=report.replayed_tokens,
                    tail_positions=report.tail_positions,
                    held_ms=report.held_ms,
                    rounds=report.rounds,
                )
                for report in reports
            ]
        )

    async def RevertPlan(
        self, request: inference_pb2.RevertPlanRequest, context: Context
    ) -> inference_pb2.RevertPlanReply:
        try:
            await self._switcher_of(request.plan).revert(
                plan_from_message(request.plan), addresses_from_message(request.plan)
            )
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OldPlan as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except LinkLost as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return inference_pb2.RevertPlanReply()

    async def HoldPlans(
        self, request: inference_pb2.HoldPlansRequest, context: Context
    ) -> inference_pb2.HoldPlansReply:
        switcher = self._others.get(request.model, self._switcher)
        switcher.hold(held_from_messages(request.held), asyncio.get_running_loop().time())
        return inference_pb2.HoldPlansReply()

    def _switcher_of(self, plan: types_pb2.SplitPlan) -> PlanSwitcher:
        return self._others.get(plan.model, self._switcher)


def _problem(request: inference_pb2.GenerateRequest) -> str | None:
    if not request.messages:
        return "messages: at least one is needed"
    if not 0 <= request.temperature <= 2:
        return "temperature must be between 0 and 2"
    if not 0 <= request.top_p <= 1:
        return "top_p must be between 0 and 1"
    return None
