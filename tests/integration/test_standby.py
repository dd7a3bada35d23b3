"""A node dies and its stage is taken over by one that stood by: real processes, and no token is computed twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.integration.edge import Edge, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("edge-1", "edge-2", "edge-3", "edge-4")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(compiled: CompiledFolders) -> AsyncIterator[Edge]:
    nodes = [NodeOptions(name, memory_mib=400) for name in NAMES]
    async with LocalCluster(compiled, nodes, manual=True, standbys=1) as cluster:
        await cluster.wait_for_plan()
        yield Edge(cluster)


async def test_a_killed_node_costs_no_replay(edge: Edge) -> None:
    await edge.apply([("edge-1", 0, 12), ("edge-2", 12, 30)])
    undisturbed = await edge.answer(150)
    await until(protected(edge), "every stage has a standby")
    assert {node for node, _, _ in await edge.standbys()} == {"edge-3", "edge-4"}

    async def die() -> str:
        await edge.cluster.kill("edge-2")
        async with aclosing(edge.changes()) as changes:
            async for done in changes:
                if "edge-2" not in [stage.node for stage in done.plan.stages]:
                    return done.transfer
        raise AssertionError

    tokens, transfer = await edge.answer_through(150, 60, die)
    assert tokens == undisturbed
    assert transfer.startswith("standby chosen: edge-2 is lost")
    assert "1 by standby" in transfer
    assert "by replay" not in transfer
    await until(protected(edge), "every stage of the plan without it has a standby")
    await edge.drained()


def protected(edge: Edge) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return {at[1:] for at in await edge.standbys()} == {at[1:] for at in await edge.plan()}

    return holds
