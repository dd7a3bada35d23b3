"""Three nodes for a module's tests, and a gateway for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from tests.split_inference.in_process import ALONE, Client, Edge, InProcessNode


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(compiled_model_dirs: Any) -> AsyncIterator[Edge]:
    nodes = [InProcessNode(name, compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir) for name in "abc"]
    for node in nodes:
        await node.start()
    edge = Edge(nodes)
    yield edge
    await edge.channels.close()
    for node in nodes:
        await node.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[Client]:
    """Every test must leave no KV behind on any node."""
    client = Client(edge)
    yield client
    await client.close()
    used = await edge.used()
    await edge.end_all_sessions()  # so that one test's fault is not another's
    assert used == {"a": 0, "b": 0, "c": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(edge: Edge) -> list[int]:
    """Sixty greedy tokens of the whole model on one node."""
    client = Client(edge)
    await client.use(ALONE)
    tokens = await client.answer(60)
    await client.close()
    return tokens
