"""Nodes that start with an empty store: they fetch what their stage needs, and answer as the others do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.content_store.entries import bytes_on_disk, read_manifest
from mec_platform.content_store.partial_weights import PartialWeights
from tests.integration.edge import Edge

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, compiled: CompiledFolders) -> Path:
    """The platform's store, and room for those of nodes."""
    root = tmp_path_factory.mktemp("stores")
    for kind, folder in (("models", compiled.package), ("artefacts", compiled.artefact)):
        shutil.copytree(folder, root / "platform" / kind / folder.name)
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(compiled: CompiledFolders, stores: Path) -> AsyncIterator[Edge]:
    """edge-1 has the model; the others have nothing. edge-2 has room for most of it, edge-3 for two blocks."""
    nodes = [
        NodeOptions("edge-1"),
        NodeOptions("edge-2", memory_mib=110, store=stores / "edge-2"),
        NodeOptions("edge-3", memory_mib=8, store=stores / "edge-3"),
    ]
    async with LocalCluster(compiled, nodes, manual=True, context=256, store=stores / "platform") as cluster:
        await cluster.wait_for_plan()
        yield Edge(cluster)


def weights(stores: Path, node: str, package: Path) -> PartialWeights:
    folder = stores / node / "partial_models" / package.name
    return PartialWeights(folder, read_manifest(folder) or {})


async def test_a_node_with_an_empty_store_fetches_its_stage_and_answers_the_same(
    edge: Edge, stores: Path, compiled: CompiledFolders
) -> None:
    await edge.apply([("edge-1", 0, 30)])
    alone = await edge.answer(20)
    done = await edge.apply([("edge-1", 0, 10), ("edge-2", 10, 30)])
    assert done.outcome == "committed"
    assert await edge.answer(20) == alone
    held = weights(stores, "edge-2", compiled.package).whole_parts()
    assert {"rope", "embed", "head", *(f"block.{block}" for block in range(10, 30))} <= held
    assert (await edge.describe("edge-2")).fetched_bytes > 0


async def test_only_the_weights_of_the_stage_are_on_the_disk(
    edge: Edge, stores: Path, compiled: CompiledFolders
) -> None:
    before = await edge.answer(10)
    await edge.apply([("edge-1", 0, 10), ("edge-3", 10, 12), ("edge-2", 12, 30)])
    assert await edge.answer(10) == before
    held = weights(stores, "edge-3", compiled.package).whole_parts()
    assert held == {"rope", "block.10", "block.11"}
    file = stores / "edge-3" / "partial_models" / compiled.package.name / "weights.bin"
    assert file.stat().st_size == (compiled.package / "weights.bin").stat().st_size
    assert bytes_on_disk(stores / "edge-3") < file.stat().st_size // 5


async def test_a_node_that_is_killed_has_its_weights_when_it_starts_again(edge: Edge) -> None:
    before = await edge.answer(10)
    await edge.cluster.kill("edge-3")
    await edge.cluster.start_node("edge-3")
    await edge.apply([("edge-1", 0, 10), ("edge-3", 10, 12), ("edge-2", 12, 30)])
    assert await edge.answer(10) == before
    assert (await edge.describe("edge-3")).fetched_bytes == 0


async def test_a_peer_gives_what_the_platform_has_no_more(edge: Edge, stores: Path, compiled: CompiledFolders) -> None:
    before = await edge.answer(10)
    shutil.rmtree(stores / "platform" / "models")
    done = await edge.apply([("edge-1", 0, 12), ("edge-3", 12, 14), ("edge-2", 14, 30)])
    assert done.outcome == "committed"
    assert await edge.answer(10) == before
    assert {"block.12", "block.13"} <= weights(stores, "edge-3", compiled.package).whole_parts()
