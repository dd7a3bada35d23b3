"""An edge of real processes as tests see it: answers as token ids, plan changes beside them, and what nodes still hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, edge_node_pb2, inference_pb2

QUESTION = "Explain step by step how to plan, plant and care for a vegetable garden through all four seasons."
DEADLINE_S = 40.0
"""Bounds every wait; far above what anything here takes on a busy machine."""

Stages = Sequence[tuple[str, int, int]]


async def until(condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The condition's first true value. Fails the test where there is none before the deadline."""
    give_up = asyncio.get_running_loop().time() + deadline_s
    while True:
        value = await condition()
        if value:
            return value
        assert asyncio.get_running_loop().time() < give_up, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.05)


class Edge:
    """A running cluster, and what it is asked where a test does not say."""

    def __init__(self, cluster: LocalCluster, question: str = QUESTION) -> None:
        self.cluster = cluster
        self._question = question

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that run."""
        return sorted(self.cluster.running - {"platform", "gateway"})

    async def plan(self) -> list[tuple[str, int, int]]:
        """The committed stages."""
        plan = (await self.cluster.snapshot()).plan
        return [(stage.node, stage.layers.start, stage.layers.stop) for stage in plan.stages]

    async def standbys(self) -> list[tuple[str, int, int]]:
        """Who stands by for which layers in the committed plan."""
        plan = (await self.cluster.snapshot()).plan
        return [(standby.node, standby.layers.start, standby.layers.stop) for standby in plan.standbys]

    async def epoch(self) -> int:
        """The committed epoch."""
        return (await self.cluster.snapshot()).plan.epoch

    async def describe(self, node: str) -> edge_node_pb2.NodeDescription:
        """A node in its own words."""
        return await self.cluster.node(node).Describe(edge_node_pb2.DescribeRequest())

    async def last_reason(self) -> str:
        """Why the plan was changed last, in the platform's words."""
        return (await self.last_change()).reason

    async def last_change(self) -> control_plane_pb2.Reconfiguration:
        """The change that ended last."""
        return await anext(self.changes())

    async def changes(self) -> AsyncIterator[control_plane_pb2.Reconfiguration]:
        """Changes as they end, the latest one first."""
        stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(self.cluster.platform)
        call = stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest())
        try:
            async for done in call:
                yield done
        finally:
            call.cancel()

    async def apply(self, stages: Stages) -> control_plane_pb2.Reconfiguration:
        """An operator's plan."""
        return await self.cluster.apply(stages, "test")

    async def answer(
        self,
        max_tokens: int,
        question: str = "",
        temperature: float = 0.0,
        seed: int = 0,
        on_token: Callable[[int], None] = lambda made: None,
    ) -> list[int]:
        """Token ids of an answer; `on_token` learns after each how many there are."""
        tokens: list[int] = []
        request = generate_request(max_tokens, question or self._question, temperature, seed)
        async for event in self.cluster.inference.Generate(request):
            tokens.append(event.token)
            on_token(len(tokens))
        return tokens

    async def answer_through(
        self, max_tokens: int, after: int, disturb: Callable[[], Awaitable[Any]], **how: Any
    ) -> tuple[list[int], Any]:
        """An answer in whose middle, after some tokens, `disturb` runs beside it; and what that returned."""
        reached = asyncio.Event()

        async def disturbance() -> Any:
            await reached.wait()
            return await disturb()

        def watch(made: int) -> None:
            if made >= after:
                reached.set()

        return tuple(await asyncio.gather(self.answer(max_tokens, on_token=watch, **how), disturbance()))  # type: ignore[return-value]

    async def answer_until(
        self, condition: Callable[[], Awaitable[Any]], what: str, more_tokens: int = 15
    ) -> list[int]:
        """An answer that is read until the condition holds and for some tokens beyond."""
        tokens: list[int] = []
        held_at: list[int] = []

        async def wait() -> None:
            await until(condition, what)
            held_at.append(len(tokens))

        waiting = asyncio.ensure_future(wait())
        call = self.cluster.inference.Generate(generate_request(1500, self._question))
        try:
            async for event in call:
                tokens.append(event.token)
                if waiting.done() and not held_at:
                    break  # it failed
                if held_at and len(tokens) >= held_at[0] + more_tokens:
                    break
        finally:
            call.cancel()
        await waiting
        assert len(tokens) >= held_at[0] + more_tokens, "the answer ended too early to show anything"
        return tokens

    async def drained(self) -> None:
        """Waits until no node holds KV of any session. Fails the test where one keeps some."""
        held: dict[str, int] = {}

        async def nothing_held() -> bool:
            for node in self.nodes:
                held[node] = (await self.describe(node)).kv_pages_used
            return not any(held.values())

        await until(nothing_held, f"KV pages still in use: {held}", deadline_s=10)
        for node in self.nodes:
            assert not (await self.describe(node)).sessions


def generate_request(
    max_tokens: int, question: str = QUESTION, temperature: float = 0.0, seed: int = 0
) -> inference_pb2.GenerateRequest:
    """A question for the gateway's gRPC service."""
    message = inference_pb2.ChatMessage(role="user", content=question)
    return inference_pb2.GenerateRequest(messages=[message], max_tokens=max_tokens, temperature=temperature, seed=seed)
