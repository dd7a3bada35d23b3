"""Real stages in this process, and a gateway without its APIs: for tests of sessions and of chains."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mec_apps.split_inference.content.sources import SourceDirectory
from mec_apps.split_inference.content.stage_weights import StageWeights
from mec_apps.split_inference.frames import Frame, FrameKind
from mec_apps.split_inference.gateway.plan_switcher import PlanSwitcher
from mec_apps.split_inference.gateway.sessions import Sessions
from mec_apps.split_inference.gateway.switching import SwitchReport
from mec_apps.split_inference.generation import (
    GeneratedToken,
    SamplingSettings,
)
from mec_apps.split_inference.link_shaper import LinkShapers
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.compute import MAX_BATCH_ROWS, ComputeThread
from mec_apps.split_inference.node.data_plane import DataPlane
from mec_apps.split_inference.node.service import EdgeNodeService
from mec_apps.split_inference.node.settings import NodeSettings
from mec_apps.split_inference.peer_link import LinkPool
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.endpoints import Channels, make_server, start_server
from mec_platform.rpc.v1 import edge_node_pb2, edge_node_pb2_grpc

BLOCKS = 30
CONTEXT = 512
KV_PAGES = 64
GATEWAY = 9
TIMEOUT_S = 20.0
DRAIN_S = 5.0
PATIENT_REPLAY_S = 60.0
"""A replay said to take so long that no copy of KV is given up for it, however busy the machine is."""

PROMPT = tuple(range(1000, 1040))
HARDWARE = HardwareTarget("x86_64", "test", "test", 1, 1)

Stages = Sequence[tuple[str, int, int]]
ALONE: Stages = [("a", 0, 30)]
TWO: Stages = [("a", 0, 12), ("b", 12, 30)]
THREE: Stages = [("a", 0, 9), ("b", 9, 20), ("c", 20, 30)]


class InProcessNode:
    """What `mec node` runs, without its membership."""

    def __init__(self, name: str, package_dir: Path, artefact_dir: Path) -> None:
        self.name = name
        package = ModelPackage.open(package_dir)
        self.shapers = LinkShapers()
        self.channels = Channels()
        self.data_plane = DataPlane(name, self.shapers, lambda frame: self.compute.submit(frame), self._forget)
        self.compute = ComputeThread(
            lambda: CompiledModel(
                package,
                artefact_dir,
                threads=1,
                kv_pages=KV_PAGES,
                max_sessions=9,
                max_rows=MAX_BATCH_ROWS,
                context=CONTEXT,
            ),
            blocks=package.shape.blocks,
            context=CONTEXT,
            hidden_bytes_per_row=package.shape.hidden_bytes_per_row,
            vocabulary=package.spec.vocab,
            deliver=self.data_plane.deliver,
        )
        settings = NodeSettings(name, package_dir, artefact_dir, "", "", emulate=True)
        weights = StageWeights(package, SourceDirectory("", name, self.channels), ContentStore(package_dir.parents[1]))
        self.service = EdgeNodeService(
            settings, package, HARDWARE, self.compute, self.data_plane, self.shapers, self.channels, weights
        )
        self.address = ""

    async def start(self) -> None:
        await self.compute.start()
        await self.serve(0)

    async def serve(self, port: int) -> None:
        self.server = make_server()
        edge_node_pb2_grpc.add_EdgeNodeServicer_to_server(self.service, self.server)
        self.server.add_generic_rpc_handlers((self.data_plane.handler(),))
        self.address = await start_server(self.server, "127.0.0.1", port, [])

    async def vanish(self) -> None:
        """Breaks every stream and call at once, as a dead process does; its memory stays for a `serve`."""
        await self.server.stop(grace=None)

    async def come_back(self) -> None:
        await self.serve(int(self.address.rpartition(":")[2]))

    async def stop(self) -> None:
        await self.server.stop(grace=None)
        await self.data_plane.stop()
        await self.channels.close()
        self.compute.stop()

    async def _forget(self, gateway: int) -> None:
        """Clients of these tests end their sessions themselves."""


class Edge:
    """Three nodes; `epochs` only grow, so that tests can follow each other on the same nodes."""

    def __init__(self, nodes: Sequence[InProcessNode]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.epochs = itertools.count(1)
        self.numbers = itertools.count(GATEWAY)
        self.channels = Channels()

    @property
    def addresses(self) -> dict[str, str]:
        return {node.name: node.address for node in self.nodes.values()}

    def plan(self, stages: Stages, chain: int = 0, standbys: Stages = ()) -> SplitPlan:
        epoch = next(self.epochs)
        return SplitPlan(epoch, epoch - 1, "smollm2", _placed(stages), chain, _placed(standbys))

    def stub(self, node: str) -> edge_node_pb2_grpc.EdgeNodeAsyncStub:
        return edge_node_pb2_grpc.EdgeNodeStub(self.channels.to(self.nodes[node].address))

    async def prepare(self, plan: SplitPlan) -> None:
        message = plan_to_message(plan, self.addresses)
        for node in plan.members:
            index = plan.nodes.index(node) if node in plan.nodes else None
            await self.stub(node).LoadStage(edge_node_pb2.LoadStageRequest(plan=message, stage_index=index))

    async def commit(self, plan: SplitPlan, nodes: Sequence[str] = ("a", "b", "c")) -> None:
        for node in nodes:
            await self.stub(node).CommitEpoch(edge_node_pb2.EpochRequest(epoch=plan.epoch))

    async def abort(self, plan: SplitPlan) -> None:
        for node in plan.nodes:
            await self.stub(node).AbortEpoch(edge_node_pb2.EpochRequest(epoch=plan.epoch))

    async def used(self) -> dict[str, int]:
        """KV pages in use, once everything queued before has been worked off."""
        return {node.name: await node.compute.call(lambda n=node: n.compute.kv.used) for node in self.nodes.values()}

    async def end_all_sessions(self) -> None:
        for name, node in self.nodes.items():
            for session in node.compute.kv.sessions:
                await self.stub(name).EndSession(edge_node_pb2.EndSessionRequest(session=session))


class Client:
    """One gateway without its APIs."""

    def __init__(self, edge: Edge, max_sessions: int = 16) -> None:
        self.edge = edge
        self.failures: list[str] = []
        number = next(edge.numbers)
        self.sessions = Sessions(number, CONTEXT, max_sessions, lambda node, reason: self.failures.append(node))
        hello = Frame(FrameKind.HELLO, session=number << 32, payload=b"gateway")
        self.links = LinkPool(hello, LinkShapers(), self.sessions.on_frame, self.sessions.on_link_lost)
        self.switcher = PlanSwitcher(self.sessions, self.links)

    async def use(
        self,
        stages: Stages,
        *,
        mode: str = "pre_copy",
        lost: frozenset[str] = frozenset(),
        standbys: Stages = (),
    ) -> Any:
        """Prepare, switch, commit on all nodes: what the control plane does where there is one chain."""
        plan = self.edge.plan(stages, standbys=standbys)
        await self.edge.prepare(plan)
        reports = await self.switch(plan, mode=mode, lost=lost)
        await self.edge.commit(plan, [node for node in self.edge.nodes if node not in lost])
        return reports

    async def use_chain(self, chain: int, stages: Stages, leaving: Sequence[str] = ()) -> list[SwitchReport]:
        """The same for a chain beside others; nodes that leave it learn the epoch too. Without stages it ends."""
        plan = self.edge.plan(stages, chain)
        await self.edge.prepare(plan)
        reports = await self.switch(plan)
        await self.edge.commit(plan, [*plan.nodes, *leaving])
        return reports

    async def switch(
        self,
        plan: SplitPlan,
        *,
        mode: str = "pre_copy",
        lost: frozenset[str] = frozenset(),
        replay_s: float = PATIENT_REPLAY_S,
    ) -> list[SwitchReport]:
        return await self.switcher.switch(plan, self.edge.addresses, lost, mode, replay_s)

    async def answer(
        self,
        count: int,
        prompt: Sequence[int] = PROMPT,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 - a frozen value
        on_token: Callable[[int], None] = lambda made: None,
    ) -> list[int]:
        return [token.token for token in await self.generated(count, prompt, sampling, on_token)]

    async def generated(
        self,
        count: int,
        prompt: Sequence[int] = PROMPT,
        sampling: SamplingSettings = SamplingSettings(),  # noqa: B008 - a frozen value
        on_token: Callable[[int], None] = lambda made: None,
    ) -> list[GeneratedToken]:
        made: list[GeneratedToken] = []
        async with aclosing(self.sessions.generate(prompt, count, sampling)) as tokens:
            async for token in tokens:
                made.append(token)
                on_token(len(made))
        return made

    async def answer_through(
        self, count: int, after: int, disturb: Callable[[], Awaitable[Any]], sampling: SamplingSettings | None = None
    ) -> list[int]:
        """An answer in whose middle, after some tokens, `disturb` runs beside the decoding."""
        reached = asyncio.Event()

        async def disturbance() -> None:
            await reached.wait()
            await disturb()

        made, _ = await asyncio.gather(
            self.answer(
                count, sampling=sampling or SamplingSettings(), on_token=lambda n: reached.set() if n >= after else None
            ),
            disturbance(),
        )
        return made

    async def close(self) -> None:
        """After the ENDs of its sessions have arrived: a stream that closes takes what is queued with it."""
        await drained(self.edge)
        await self.links.close()
        await self.switcher.close()


def _placed(stages: Stages) -> tuple[Stage, ...]:
    return tuple(Stage(node, LayerRange(start, stop)) for node, start, stop in stages)


async def drained(edge: Edge) -> dict[str, int]:
    """KV pages in use once none is, or after a while: ENDs may still be on their way."""
    give_up = asyncio.get_running_loop().time() + DRAIN_S
    while True:
        used = await edge.used()
        if not any(used.values()) or asyncio.get_running_loop().time() > give_up:
            return used
        await asyncio.sleep(0.01)
