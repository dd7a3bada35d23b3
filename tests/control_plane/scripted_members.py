"""Nodes and gateways over real gRPC that write down what they are asked, and fail or hang as a test says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from mec_platform.rpc.endpoints import make_server, start_server
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc, inference_pb2, inference_pb2_grpc


class Member:
    """A server that writes down its calls; `fail` maps a method to the error it ends with, `hang` never answers."""

    def __init__(self, name: str, calls: list[tuple[str, str, Any]]) -> None:
        self.name = name
        self.calls = calls
        self.fail: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.hang: set[str] = set()
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()
        """Ends what hangs."""
        self.address = ""
        self.arrivals = 0
        """Pieces of weights that come one with each question, before a load is done."""
        self.described = 0
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        self.server = make_server()
        edge_node_pb2_grpc.add_EdgeNodeServicer_to_server(ScriptedNode(self), self.server)
        inference_pb2_grpc.add_InferenceServicer_to_server(ScriptedGateway(self), self.server)
        self.address = await start_server(self.server, "127.0.0.1", 0, [])

    async def take(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((self.name, method, request))
        self.called.set()
        if method in self.hang:
            await self.go_on.wait()
        if method in self.fail:
            await context.abort(*self.fail[method])


class ScriptedNode(edge_node_pb2_grpc.EdgeNodeServicer):
    def __init__(self, member: Member) -> None:
        self._member = member

    async def LoadStage(self, request: edge_node_pb2.LoadStageRequest, context: Any) -> edge_node_pb2.LoadStageReply:
        await self._member.take("LoadStage", request, context)
        if self._member.arrivals:
            await self._member.loaded.wait()
        return edge_node_pb2.LoadStageReply(load_ms=12.5)

    async def Describe(self, request: edge_node_pb2.DescribeRequest, context: Any) -> edge_node_pb2.NodeDescription:
        self._member.described += 1
        if self._member.described >= self._member.arrivals:
            self._member.loaded.set()
        return edge_node_pb2.NodeDescription(fetched_bytes=self._member.described)

    async def CommitEpoch(self, request: edge_node_pb2.EpochRequest, context: Any) -> edge_node_pb2.EpochReply:
        await self._member.take("CommitEpoch", request, context)
        return edge_node_pb2.EpochReply(committed_epoch=request.epoch)

    async def AbortEpoch(self, request: edge_node_pb2.EpochRequest, context: Any) -> edge_node_pb2.EpochReply:
        await self._member.take("AbortEpoch", request, context)
        return edge_node_pb2.EpochReply()


class ScriptedGateway(inference_pb2_grpc.InferenceServicer):
    def __init__(self, member: Member) -> None:
        self._member = member

    async def SwitchPlan(self, request: inference_pb2.SwitchPlanRequest, context: Any) -> inference_pb2.SwitchPlanReply:
        await self._member.take("SwitchPlan", request, context)
        sessions = [
            inference_pb2.SessionSwitch(session=1, mode="pre_copy", pause_ms=3, precopied_bytes=100, paused_bytes=10),
            inference_pb2.SessionSwitch(session=2, mode="replay", pause_ms=7, replayed_tokens=40),
        ]
        return inference_pb2.SwitchPlanReply(sessions=sessions)

    async def RevertPlan(self, request: inference_pb2.RevertPlanRequest, context: Any) -> inference_pb2.RevertPlanReply:
        await self._member.take("RevertPlan", request, context)
        return inference_pb2.RevertPlanReply()

    async def HoldPlans(self, request: inference_pb2.HoldPlansRequest, context: Any) -> inference_pb2.HoldPlansReply:
        await self._member.take("HoldPlans", request, context)
        return inference_pb2.HoldPlansReply()
