"""One edge of real processes for all tests that put back what they change; others start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.integration.edge import Edge

USUAL_PLAN = [("edge-1", 0, 12), ("edge-2", 12, 30)]


@pytest.fixture(scope="session")
def compiled(compiled_model_dirs: Any) -> CompiledFolders:
    return CompiledFolders(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, built=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(compiled: CompiledFolders) -> AsyncIterator[LocalCluster]:
    """edge-3 has room for eighteen blocks and the head."""
    nodes = [NodeOptions("edge-1"), NodeOptions("edge-2"), NodeOptions("edge-3", memory_mib=96)]
    async with LocalCluster(compiled, nodes, manual=True, context=1024) as cluster:
        await cluster.wait_for_plan()
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def edge(shared_cluster: LocalCluster) -> AsyncIterator[Edge]:
    """The shared edge on its usual plan; a test must leave no session behind."""
    edge = Edge(shared_cluster)
    if await edge.plan() != USUAL_PLAN:
        await edge.apply(USUAL_PLAN)
    yield edge
    await edge.drained()


@pytest_asyncio.fixture(loop_scope="session")
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client of the OpenAI API."""
    async with openai.AsyncOpenAI(base_url=edge.cluster.openai_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def undisturbed(shared_cluster: LocalCluster) -> list[int]:
    """A hundred greedy tokens that nothing disturbs."""
    return await Edge(shared_cluster).answer(100)
