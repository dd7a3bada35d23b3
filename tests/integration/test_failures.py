"""Plans follow by themselves what goes wrong, and answers outlive it: a dead node, a link that degrades, a CPU that slows.

Every test has an edge of its own. Links and CPU shares are emulated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.split_inference.link_shaper import EmulatedLink
from tests.integration.edge import Edge, until

pytestmark = pytest.mark.slow

NAMES = ("edge-1", "edge-2", "edge-3")


@asynccontextmanager
async def running_edge(compiled: CompiledFolders) -> AsyncIterator[Edge]:
    """Three nodes, any two of which have room for the model; every member has measured its links."""
    nodes = [NodeOptions(name, memory_mib=100) for name in NAMES]
    async with LocalCluster(compiled, nodes, cooldown_s=1.0) as cluster:
        await cluster.wait_for_plan()
        edge = Edge(cluster)

        async def measured() -> bool:
            members = (await cluster.snapshot()).members
            return len(members) == len(NAMES) + 1 and all(
                {link.peer for link in member.links} >= set(NAMES) - {member.name} for member in members
            )

        await until(measured, "every member measures its links")
        yield edge


async def test_an_answer_outlives_the_death_of_a_node(compiled: CompiledFolders) -> None:
    async with running_edge(compiled) as edge:
        undisturbed = await edge.answer(80)
        victim = (await edge.plan())[-1][0]

        async def die() -> None:
            await edge.cluster.kill(victim)

        tokens, _ = await edge.answer_through(80, 20, die)
        assert tokens == undisturbed
        assert victim not in [node for node, _, _ in await edge.plan()]
        await edge.drained()


async def test_a_link_that_degrades_is_left_while_the_answer_goes_on(compiled: CompiledFolders) -> None:
    async with running_edge(compiled) as edge:
        degraded: list[tuple[str, str]] = []

        async def degrade_then_left() -> bool:
            chain = [node for node, _, _ in await edge.plan()]
            if degraded and degraded[-1] not in pairwise(chain) and _words(degraded[-1]) in await edge.last_reason():
                return True
            if not degraded or degraded[-1] not in pairwise(chain):  # at first, or after a change for another reason
                assert len(chain) > 1, "no node alone has room for the model"
                degraded.append((chain[0], chain[1]))
                await edge.cluster.emulate(chain[0], {chain[1]: EmulatedLink(bytes_per_s=30e3)})
            return False

        tokens = await edge.answer_until(degrade_then_left, "a plan without the degraded link")
        await edge.drained()
        assert await edge.answer(len(tokens)) == tokens


def _words(link: tuple[str, str]) -> str:
    return f"link {link[0]} -> {link[1]} "


async def test_a_node_that_slows_down_gets_less_to_do_while_the_answer_goes_on(compiled: CompiledFolders) -> None:
    async with running_edge(compiled) as edge:
        slowed: list[tuple[str, int]] = []

        async def slow_then_relieved() -> bool:
            layers = {node: stop - start for node, start, stop in await edge.plan()}
            relieved = bool(slowed) and layers.get(slowed[-1][0], 0) < slowed[-1][1]
            if relieved and f"node {slowed[-1][0]} slowed" in await edge.last_reason():
                return True
            if relieved or not slowed:  # at first, or after a change for another reason
                for name, _ in slowed:
                    await edge.cluster.emulate(name, cpu_share=1.0)
                slowed.append(max(layers.items(), key=lambda held: held[1]))
                await edge.cluster.emulate(slowed[-1][0], cpu_share=0.1)
            return False

        tokens = await edge.answer_until(slow_then_relieved, "a plan that relieves the slow node")
        await edge.drained()
        assert await edge.answer(len(tokens)) == tokens
