"""What a gateway does about answers that are late: it asks nodes whether they live, and leaves those that do not say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.gateway.active_plan import ActivePlan
from mec_apps.split_inference.gateway.plan_user import LONGEST_PATIENCE_S, PlanUser
from mec_apps.split_inference.gateway.stall_watch import StallWatch
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.peer_link import LinkPool, PeerLink
from mec_platform.domain.failures import Failure, FailureKind
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.endpoints import Channels

TIMEOUT_S = 20.0


class Node:
    """A data plane that takes frames and answers none, and says that it lives, unless it hangs; `asked` counts."""

    def __init__(self) -> None:
        self.hangs = False
        self.asked = asyncio.Semaphore(0)
        self._plane = DataPlane("edge-1", LinkShapers(), lambda frame: None, self._gone)

    async def start(self) -> str:
        self._server = grpc.aio.server()
        check: Any = grpc.unary_unary_rpc_method_handler(self._check)
        health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
        self._server.add_generic_rpc_handlers((self._plane.handler(), health))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(grace=None)
        await self._plane.stop()

    async def _check(self, request: bytes, context: Any) -> bytes:
        self.asked.release()
        if self.hangs:
            await asyncio.Event().wait()
        return b""

    async def _gone(self, gateway: int) -> None: ...


class Gateway:
    """Requests, the links that they use, and what was lost of those."""

    def __init__(self) -> None:
        self.requests = PlanUser()
        self.lost: asyncio.Queue[tuple[str, Failure]] = asyncio.Queue()
        hello = Frame(FrameKind.HELLO, session=7 << 32, payload=b"gateway")
        self.links = LinkPool(hello, LinkShapers(), lambda node, frame: None, self._lose)
        self.watch = StallWatch(self.requests)
        self.channels = Channels()

    def _lose(self, node: str, failure: Failure) -> None:
        self.lost.put_nowait((node, failure))

    def plan(self, link: PeerLink) -> ActivePlan:
        plan = SplitPlan(1, 0, "m", (Stage("edge-1", LayerRange(0, 2)),))
        return ActivePlan(plan, {"edge-1": link.address}, {"edge-1": link}, self.channels)

    async def stop(self) -> None:
        await self.watch.stop()
        await self.links.close()
        await self.channels.close()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    await node.stop()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    yield gateway
    await gateway.stop()


async def test_a_node_that_keeps_an_answer_and_does_not_say_that_it_lives_is_left(node: Node, gateway: Gateway) -> None:
    link = await gateway.links.connect("edge-1", await node.start(), TIMEOUT_S)
    node.hangs = True
    gateway.requests.note_sent(1, gateway.plan(link))
    gateway.watch.start()
    name, failure = await asyncio.wait_for(gateway.lost.get(), TIMEOUT_S)
    assert (name, failure.kind) == ("edge-1", FailureKind.NOT_ANSWERING)


async def test_a_node_that_keeps_an_answer_and_lives_is_waited_for(node: Node, gateway: Gateway) -> None:
    link = await gateway.links.connect("edge-1", await node.start(), TIMEOUT_S)
    gateway.requests.note_sent(1, gateway.plan(link))
    gateway.watch.start()
    for _ in range(3):
        await asyncio.wait_for(node.asked.acquire(), TIMEOUT_S)
    assert link.connected
    assert gateway.lost.empty()


async def test_answers_are_late_by_what_is_usual_on_their_chain(node: Node, gateway: Gateway) -> None:
    link = await gateway.links.connect("edge-1", await node.start(), TIMEOUT_S)
    requests, plan = gateway.requests, gateway.plan(link)
    assert requests.patience_s(plan) == LONGEST_PATIENCE_S
    requests.use_plan(plan)
    for token_s in (0.03, 0.05, 0.04):
        requests.note_pace(plan, token_s)
    assert requests.patience_s(plan) == pytest.approx(0.2)
    requests.note_sent(1, plan)
    assert requests.late_plans() == []
    requests.note_settled(1)
    assert requests.late_plans() == []
