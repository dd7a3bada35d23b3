"""Runs an edge in network namespaces, cuts it in two in several ways while it answers, and prints what came of it as JSON.

A program of its own, because it is inside the network that it makes. A cut is silent: packets between two members go to
nobody, and no connection is closed. Counterpart: `test_partitions`, which says what must be so.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio

from compiler.build import compile_model
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.cli.testbed.kernel import run_tool
from mec_apps.cli.testbed.network import Network
from mec_apps.cli.testbed.premises import NamespacedPremises
from mec_apps.cli.testbed.run import Ground, lay_ground
from tests.integration.edge import Edge, Stages, until

NODES = [NodeOptions(name) for name in ("edge-1", "edge-2", "edge-3")]
PLAN: Stages = [("edge-1", 0, 15), ("edge-2", 15, 30)]
TOKENS = 400
CPU_SHARE = 0.5
"""EMULATED: an answer lasts for some seconds, longer than silence takes to be believed."""

CUT_AFTER = 15
NOBODY = "02:00:00:00:00:fe"
"""An address of no interface."""

WAIT_S = 90.0
CUTS = {
    "node and platform": [("edge-2", "platform")],
    "two nodes of the plan": [("edge-1", "edge-2")],
    "gateway and platform": [("gateway", "platform")],
    "gateway and first node": [("gateway", "edge-1")],
    "node and all others": [("edge-2", other) for other in ("platform", "gateway", "edge-1", "edge-3")],
}


@dataclass(slots=True)
class Outcome:
    """`left` says whether the plan did without a node that was cut off before the network was whole again."""

    cut: str
    same_tokens: bool = False
    failure: str = ""
    left: bool = False
    fenced: bool = False
    used_again: bool = False
    reasons: list[str] = field(default_factory=list)


def cut(network: Network, one: str, other: str) -> None:
    """From now on nothing comes through between two members."""
    for source, target in ((one, other), (other, one)):
        address = network.address(target)
        where = ("-n", network.namespace(source), "neigh", "replace", address, "dev", "eth0")
        run_tool("ip", *where, "lladdr", NOBODY, "nud", "permanent")


def mend(network: Network, one: str, other: str) -> None:
    """Undoes that."""
    for source, target in ((one, other), (other, one)):
        run_tool("ip", "-n", network.namespace(source), "neigh", "del", network.address(target), "dev", "eth0")


class Partitioned:
    """One cut after the other, each from the same plan."""

    def __init__(self, network: Network, edge: Edge, undisturbed: list[int]) -> None:
        self._network = network
        self._edge = edge
        self._undisturbed = undisturbed
        self._here: set[str] = set()

    async def try_cut(self, name: str) -> Outcome:
        """An answer through a cut, which ends when the answer has or the plan has changed; then the way back."""
        outcome, edge = Outcome(name), self._edge
        before = await edge.epoch()
        made: list[int] = []
        reached = asyncio.Event()

        def note(count: int) -> None:
            made.append(count)
            if count == CUT_AFTER:
                reached.set()

        answering = asyncio.ensure_future(edge.answer(TOKENS, on_token=note))
        await reached.wait()
        for pair in CUTS[name]:
            cut(self._network, *pair)
        outcome.same_tokens, outcome.failure = await self._finished(answering)
        outcome.left = await edge.epoch() != before
        if outcome.left:
            outcome.reasons.append(await edge.last_reason())
        for pair in CUTS[name]:
            mend(self._network, *pair)
        try:
            await until(self._all_here, "all members are here again", WAIT_S)
        except AssertionError as error:
            outcome.failure = f"{error}: {sorted(self._here)}"
            return outcome
        outcome.fenced = await self._all_at_the_plan()
        outcome.used_again = await self._usable_again()
        return outcome

    async def _finished(self, answering: asyncio.Future[list[int]]) -> tuple[bool, str]:
        try:
            async with asyncio.timeout(WAIT_S):
                return await answering == self._undisturbed, ""
        except grpc.aio.AioRpcError as error:
            return False, f"{error.code().name}: {error.details()}"
        except TimeoutError:
            return False, f"no end within {WAIT_S:g} s"

    async def _all_here(self) -> bool:
        self._here = {member.name for member in (await self._edge.cluster.snapshot()).members}
        return self._here == {"gateway", *(node.name for node in NODES)}

    async def _all_at_the_plan(self) -> bool:
        """Whether every node has let go of what is not the plan's: of stages, epochs, and KV of sessions that went on."""

        async def fenced(node: str) -> bool:
            plan, epoch = await self._edge.plan(), await self._edge.epoch()
            seen = await self._edge.describe(node)
            held = [(stage.epoch, stage.layers.start, stage.layers.stop) for stage in seen.stages]
            own = [(epoch, start, stop) for name, start, stop in plan if name == node]
            return held == own and seen.committed_epoch >= epoch and not seen.sessions

        for node in NODES:
            await until(partial(fenced, node.name), f"{node.name} is at the plan", WAIT_S)
        return True

    async def _usable_again(self) -> bool:
        async def applied() -> bool:
            try:
                await self._edge.apply(PLAN)
            except grpc.aio.AioRpcError:
                return False  # a link is opened again within seconds
            return True

        if await self._edge.plan() != PLAN:
            await until(applied, "the usual plan", WAIT_S)
        return await self._edge.answer(TOKENS) == self._undisturbed


async def run_cuts(ground: Ground, compiled: CompiledFolders, names: list[str], tell: Callable[[Any], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        premises = NamespacedPremises(ground.network, ground.quotas, [], Path(folder))
        async with LocalCluster(compiled, NODES, manual=True, context=512, premises=premises) as cluster:
            await cluster.wait_for_plan(60)
            edge = Edge(cluster)
            await edge.apply(PLAN)
            for node in NODES:
                await cluster.emulate(node.name, cpu_share=CPU_SHARE)
            partitioned = Partitioned(ground.network, edge, await edge.answer(TOKENS))
            for name in names:
                tell(asdict(await partitioned.try_cut(name)))


def main(names: list[str]) -> None:
    """Prints an outcome a line."""
    built = compile_model("smollm2", "int4")
    compiled = CompiledFolders(built.package_dir, built.artefact_dir, built=False)

    def tell(outcome: Any) -> None:
        sys.stdout.write(f"{json.dumps(outcome)}\n")
        sys.stdout.flush()

    with lay_ground(NODES) as ground:
        asyncio.run(run_cuts(ground, compiled, names or list(CUTS), tell))


if __name__ == "__main__":
    main(sys.argv[1:])
