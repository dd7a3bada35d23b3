"""A chain of real processes in which one node computes on a SIMULATED GPU: the GPU's kernels, run on the CPU."""

from __future__ import annotations

import pytest

from compiler.build import compile_model
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.integration.edge import Edge

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

TOKENS = 16


async def test_a_mixed_chain_answers_as_cpus_do_and_kv_moves_to_and_from_the_gpu(compiled: CompiledFolders) -> None:
    """First the GPU is in the middle; in the middle of the answer it becomes the last stage, which samples."""
    simulated = compile_model("smollm2", "int4", "simulated-gpu")
    nodes = [NodeOptions("edge-1"), NodeOptions("gpu", artefact=simulated.artefact_dir), NodeOptions("edge-3")]
    async with LocalCluster(compiled, nodes, manual=True, context=256) as cluster:
        edge = Edge(cluster)
        await cluster.wait_for_plan()
        assert (await edge.describe("gpu")).hardware.compile_target == "simulated-gpu"
        await edge.apply([("edge-1", 0, 18), ("edge-3", 18, 30)])
        on_cpus = await edge.answer(TOKENS)
        await edge.apply([("edge-1", 0, 8), ("gpu", 8, 14), ("edge-3", 14, 30)])
        mixed, done = await edge.answer_through(
            TOKENS, 5, lambda: edge.apply([("edge-3", 0, 11), ("edge-1", 11, 22), ("gpu", 22, 30)])
        )
        assert mixed == on_cpus
        assert (done.outcome, done.kind, done.sessions) == ("committed", "re_split", 1)
        assert done.moved_bytes > 0
        await edge.drained()
