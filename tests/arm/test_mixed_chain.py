"""A chain of real nodes of both architectures behind a real platform and gateway answers as this machine does alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from compiler.build import CompiledModel, compile_model
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.arm.conftest import ArmPython
from tests.integration.edge import Edge

pytestmark = [pytest.mark.arm, pytest.mark.asyncio(loop_scope="module")]

QUESTIONS = ["What is an edge node?", "Name three colours.", "Write one sentence about rain."]
TOKENS = 10
ALONE = [("x86", 0, 30)]
CHAINS = [
    [("x86", 0, 10), ("arm-a76", 10, 20), ("x86-too", 20, 30)],
    [("x86", 0, 12), ("arm-n1", 12, 15), ("x86-too", 15, 30)],
    [("arm-n1", 0, 6), ("x86", 6, 24), ("arm-a76", 24, 30)],
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mixed_edge(compiled_model_dirs: CompiledModel, arm_python: ArmPython) -> AsyncIterator[Edge]:
    """Two nodes of this machine, and one each of two kinds of ARM cores."""
    arm = [
        NodeOptions(
            name, artefact=compile_model("smollm2", "int4", target).artefact_dir, interpreter=arm_python(target)
        )
        for name, target in (("arm-a76", "cortex-a76"), ("arm-n1", "neoverse-n1"))
    ]
    compiled = CompiledFolders(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, built=False)
    nodes = [NodeOptions("x86"), NodeOptions("x86-too"), *arm]
    async with LocalCluster(compiled, nodes, manual=True, context=256) as cluster:
        await cluster.wait_for_plan(120)
        yield Edge(cluster)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers_alone(mixed_edge: Edge) -> list[list[int]]:
    """What this machine's own node answers."""
    await mixed_edge.apply(ALONE)
    return [await mixed_edge.answer(TOKENS, question) for question in QUESTIONS]


async def test_nodes_say_what_they_are(mixed_edge: Edge) -> None:
    hardware = {name: (await mixed_edge.describe(name)).hardware for name in ("x86", "arm-a76", "arm-n1")}
    assert [hardware[name].arch for name in hardware] == ["x86_64", "aarch64", "aarch64"]
    assert [hardware[name].compile_target for name in ("arm-a76", "arm-n1")] == ["cortex-a76", "neoverse-n1"]
    assert "asimddp" in hardware["arm-a76"].features


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(stage[0] for stage in chain))
async def test_a_mixed_chain_generates_the_same_text(
    mixed_edge: Edge, answers_alone: list[list[int]], chain: list[tuple[str, int, int]]
) -> None:
    done = await mixed_edge.apply(chain)
    assert done.outcome == "committed"
    answers = [await mixed_edge.answer(TOKENS, question) for question in QUESTIONS]
    assert answers == answers_alone
    await mixed_edge.drained()
