"""Live changes of the plan over real processes: no token changes, bad plans change nothing, failures take nothing down."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.v1 import edge_node_pb2, types_pb2
from tests.integration.edge import Edge, Stages, generate_request, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

RE_SPLIT: Stages = [("edge-1", 0, 20), ("edge-2", 20, 30)]
MIGRATION: Stages = [("edge-1", 0, 12), ("edge-3", 12, 30)]
THREE: Stages = [("edge-2", 0, 8), ("edge-1", 8, 17), ("edge-3", 17, 30)]
ONE: Stages = [("edge-2", 0, 30)]


@pytest.mark.parametrize(
    ("stages", "kind"), [(RE_SPLIT, "re_split"), (MIGRATION, "migrate"), (THREE, "re_split"), (ONE, "re_split")]
)
async def test_a_change_in_the_middle_of_an_answer_changes_no_token(
    edge: Edge, undisturbed: list[int], stages: Stages, kind: str
) -> None:
    tokens, done = await edge.answer_through(100, 15, lambda: edge.apply(stages))
    assert tokens == undisturbed
    assert (done.outcome, done.kind, done.sessions) == ("committed", kind, 1)
    assert done.moved_bytes > 0
    assert " chosen: " in done.transfer
    assert "Sessions: 1 by " in done.transfer
    assert await edge.plan() == stages


async def test_a_chain_of_changes_changes_no_token(edge: Edge, undisturbed: list[int]) -> None:
    async def changes() -> list[int]:
        return [(await edge.apply(stages)).plan.epoch for stages in (MIGRATION, THREE, ONE, RE_SPLIT)]

    tokens, epochs = await edge.answer_through(100, 5, changes)
    assert tokens == undisturbed
    assert epochs == sorted(set(epochs))


async def test_a_sampled_answer_is_the_same_through_a_re_split(edge: Edge) -> None:
    alone = await edge.answer(60, temperature=0.8, seed=3)
    tokens, _ = await edge.answer_through(60, 10, lambda: edge.apply(THREE), temperature=0.8, seed=3)
    assert tokens == alone


async def test_several_answers_move_together_and_none_is_disturbed(edge: Edge, undisturbed: list[int]) -> None:
    others = [edge.answer(100) for _ in range(2)]
    (tokens, done), *rest = await asyncio.gather(edge.answer_through(100, 20, lambda: edge.apply(MIGRATION)), *others)
    assert [tokens, *rest] == [undisturbed] * 3
    assert done.sessions == 3


async def test_hanging_up_during_a_change_leaves_no_kv_anywhere(edge: Edge) -> None:
    call = edge.cluster.inference.Generate(generate_request(700))
    changing = None
    made = 0
    async for _ in call:
        made += 1
        if made == 30:
            changing = asyncio.ensure_future(edge.apply(THREE))
        if made == 32:
            break
    call.cancel()
    assert changing is not None
    assert (await changing).outcome == "committed"
    await edge.drained()


@pytest.mark.parametrize(
    ("stages", "reasons"),
    [
        ([("edge-1", 0, 12)], ["ends at block 12"]),
        ([("edge-1", 0, 12), ("edge-2", 13, 30)], ["starts at block 13, expected 12"]),
        ([("edge-1", 0, 12), ("edge-1", 12, 30)], ["more than one stage"]),
        ([("edge-1", 0, 12), ("edge-2", 12, 31)], ["the model has 30"]),
        ([("edge-1", 0, 5), ("edge-3", 5, 30)], ["edge-3 offers"]),
        ([("edge-1", 0, 5), ("edge-9", 5, 29)], ["edge-9 is not alive", "ends at block 29"]),
        ([("edge-1", 5, 5), ("edge-2", 5, 30)], ["0 <= start < stop"]),
        ([], ["at least one stage"]),
    ],
)
async def test_a_plan_that_breaks_a_rule_is_refused_with_its_reasons_and_changes_nothing(
    edge: Edge, stages: Stages, reasons: list[str]
) -> None:
    before = (await edge.plan(), await edge.epoch())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await edge.apply(stages)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(reason in (error.value.details() or "") for reason in reasons)
    assert (await edge.plan(), await edge.epoch()) == before
    assert [len((await edge.describe(node)).stages) for node in edge.nodes] == [1, 1, 0]


@pytest_asyncio.fixture(loop_scope="session")
async def stopped_node(edge: Edge) -> AsyncIterator[str]:
    """edge-3, frozen: it still counts as alive for a while and answers nothing."""
    process = int(edge.cluster.facts["edge-3"]["pid"])
    os.kill(process, signal.SIGSTOP)
    yield "edge-3"
    os.kill(process, signal.SIGCONT)

    async def is_back() -> bool:
        return any(member.name == "edge-3" for member in (await edge.cluster.snapshot()).members)

    await until(is_back, "edge-3 reports again")


async def test_a_node_that_hangs_aborts_its_plan_and_the_old_one_goes_on(
    edge: Edge, undisturbed: list[int], stopped_node: str
) -> None:
    before = await edge.epoch()

    async def apply() -> grpc.aio.AioRpcError | None:
        try:
            await edge.apply(MIGRATION)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    tokens, error = await edge.answer_through(100, 15, apply)
    assert tokens == undisturbed
    assert error is not None
    assert error.code() is grpc.StatusCode.ABORTED
    assert stopped_node in (error.details() or "")
    assert await edge.epoch() == before
    assert await edge.answer(10) == undisturbed[:10]


async def test_a_stage_of_an_old_epoch_is_refused_by_the_node(edge: Edge) -> None:
    epoch = await edge.epoch()
    assert (await edge.describe("edge-1")).committed_epoch == epoch
    stage = types_pb2.Stage(node="edge-1", layers=types_pb2.LayerRange(start=0, stop=30))
    plan = types_pb2.SplitPlan(epoch=epoch, parent_epoch=epoch - 1, model="smollm2", stages=[stage])
    node = edge.cluster.node("edge-1")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await node.LoadStage(edge_node_pb2.LoadStageRequest(plan=plan, stage_index=0))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    for call in (node.CommitEpoch, node.AbortEpoch):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(edge_node_pb2.EpochRequest(epoch=epoch - 1))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    described = await edge.describe("edge-1")
    assert described.committed_epoch == epoch
    assert [(stage.layers.start, stage.layers.stop) for stage in described.stages] == [(0, 12)]


async def test_exported_kv_comes_back_bit_for_bit_after_an_import_elsewhere(edge: Edge) -> None:
    call = edge.cluster.inference.Generate(generate_request(700))
    reading = aiter(call)
    for _ in range(20):
        await anext(reading)
    (session,) = (await edge.describe("edge-2")).sessions
    selection = edge_node_pb2.KvSelection(
        session=session, layers=types_pb2.LayerRange(start=12, stop=15), first_position=0, last_position=35
    )
    exported = [chunk async for chunk in edge.cluster.node("edge-2").ExportKv(selection)]
    target = edge.cluster.node("edge-3")
    with pytest.raises(grpc.aio.AioRpcError, match=r"holds nothing with layers \[12, 15\)"):
        await target.ImportKv(iter(exported))
    prepared = await edge.epoch() + 1000
    stages = tuple(
        Stage(node, LayerRange(*layers))
        for node, *layers in [("edge-1", 0, 12), ("edge-3", 12, 15), ("edge-2", 15, 30)]
    )
    addresses = {name: edge.cluster.facts[name]["grpc"] for name in edge.nodes}
    plan = plan_to_message(SplitPlan(prepared, prepared - 1, "smollm2", stages), addresses)
    await target.LoadStage(edge_node_pb2.LoadStageRequest(plan=plan, stage_index=1))
    reply = await target.ImportKv(iter(exported))
    assert reply.bytes == sum(len(chunk.keys) + len(chunk.values) for chunk in exported) > 0
    assert [chunk async for chunk in target.ExportKv(selection)] == exported
    call.cancel()
    freed = await target.EndSession(edge_node_pb2.EndSessionRequest(session=session))
    assert freed.pages_freed == 3
    await target.AbortEpoch(edge_node_pb2.EpochRequest(epoch=prepared))


@pytest.mark.parametrize(("layers", "last"), [((0, 12), 10), ((12, 15), 10_000), ((12, 40), 10)])
async def test_kv_that_a_node_does_not_hold_is_not_exported(edge: Edge, layers: tuple[int, int], last: int) -> None:
    selection = edge_node_pb2.KvSelection(
        session=1, layers=types_pb2.LayerRange(start=layers[0], stop=layers[1]), first_position=0, last_position=last
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in edge.cluster.node("edge-2").ExportKv(selection):
            pass
    assert error.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
