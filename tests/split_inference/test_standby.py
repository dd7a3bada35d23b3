"""Nodes that stand by: what they have of a session's KV, and what it is good for when a stage is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from mec_apps.split_inference.gateway import standby
from mec_apps.split_inference.gateway.sessions import Session
from mec_apps.split_inference.gateway.standby import StandbyCopies
from mec_apps.split_inference.generation import SamplingSettings
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import Stage
from mec_platform.rpc.convert import plan_to_message
from mec_platform.rpc.v1 import edge_node_pb2
from tests.split_inference.in_process import ALONE, PROMPT, TIMEOUT_S, TWO, Client, Edge, Stages, drained

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LONG_PROMPT = tuple(1000 + i for i in range(200))
C_FOR_B: Stages = [("c", 12, 30)]
STANDBY = Stage("c", LayerRange(12, 30))


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def copies(client: Client) -> AsyncIterator[StandbyCopies]:
    copies = StandbyCopies(client.sessions)
    copies.start()
    yield copies
    await copies.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed_long(edge: Edge) -> list[int]:
    client = Client(edge)
    await client.use(ALONE)
    tokens = await client.answer(60, LONG_PROMPT)
    await client.close()
    return tokens


async def until(condition: Callable[[], bool]) -> None:
    give_up = asyncio.get_running_loop().time() + TIMEOUT_S
    while not condition():
        assert asyncio.get_running_loop().time() < give_up
        await asyncio.sleep(0.005)


def only_session(client: Client) -> Session:
    (session,) = client.sessions.live.values()
    return session


async def answer_losing(
    client: Client, prompt: Sequence[int], victims: Sequence[str], standbys: Stages, rescue: Stages
) -> tuple[list[int], list[Any], Session]:
    """Sixty tokens; once standbys have copies, `victims` vanish and `rescue` takes over."""
    await client.use(TWO)
    await client.use(TWO, standbys=standbys)
    made: list[int] = []
    reports: list[Any] = []
    session = None
    try:
        async with aclosing(client.sessions.generate(prompt, 60, SamplingSettings())) as tokens:
            async for token in tokens:
                made.append(token.token)
                if len(made) != 10:
                    continue
                session = only_session(client)
                wanted = len(session.active.plan.standbys)
                await until(lambda s=session, n=wanted: sum(s.copies.values()) == n * s.kv_positions)  # type: ignore[misc]
                for victim in victims:
                    await client.edge.nodes[victim].vanish()
                switching = asyncio.ensure_future(client.use(rescue, lost=frozenset(victims)))
        reports = await switching
    finally:
        for victim in victims:
            await client.edge.nodes[victim].come_back()
        await client.use(ALONE)  # they learn the epoch and that they hold nothing
    assert session is not None
    return made, reports, session


async def test_a_lost_stage_goes_on_where_copies_of_its_kv_stand_by(
    client: Client, undisturbed_long: list[int]
) -> None:
    made, (report,), session = await answer_losing(client, LONG_PROMPT, ["b"], C_FOR_B, [("a", 0, 12), ("c", 12, 30)])
    assert made == undisturbed_long
    assert session.replayed_tokens == 0
    assert session.rescues == 1
    assert (report.mode, report.replayed_tokens) == ("standby", 0)


async def test_the_kv_of_a_standby_moves_on_where_the_new_plan_cuts_elsewhere(
    client: Client, undisturbed_long: list[int]
) -> None:
    made, _, session = await answer_losing(client, LONG_PROMPT, ["b"], C_FOR_B, [("a", 0, 20), ("c", 20, 30)])
    assert made == undisturbed_long
    assert (session.replayed_tokens, session.rescues) == (0, 1)


async def test_a_node_of_the_chain_can_stand_by_for_another(client: Client, undisturbed: list[int]) -> None:
    made, _, session = await answer_losing(client, PROMPT, ["b"], [("a", 12, 30)], ALONE)
    assert made == undisturbed
    assert (session.replayed_tokens, session.rescues) == (0, 1)


async def test_what_no_standby_has_is_replayed(client: Client, undisturbed: list[int]) -> None:
    made, (report,), session = await answer_losing(client, PROMPT, ["b"], [("c", 0, 12)], [("a", 0, 12), ("c", 12, 30)])
    assert made == undisturbed
    assert session.replayed_tokens > 0
    assert (report.mode, session.rescues) == ("replay", 0)


async def test_a_stage_that_is_lost_together_with_its_standby_is_replayed(
    client: Client, undisturbed: list[int]
) -> None:
    made, _, session = await answer_losing(client, PROMPT, ["b", "c"], C_FOR_B, ALONE)
    assert made == undisturbed
    assert session.replayed_tokens > 0


async def test_what_a_standby_lacks_is_computed_again_with_the_first_frame(
    client: Client, undisturbed: list[int], copies: StandbyCopies
) -> None:
    await client.use(TWO, standbys=C_FOR_B)
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    made = [(await anext(tokens)).token]
    session = only_session(client)
    await until(lambda: session.copies.get(STANDBY, 0) == len(PROMPT))
    await copies.stop()
    made += [(await anext(tokens)).token for _ in range(20)]
    try:
        await client.edge.nodes["b"].vanish()
        switching = asyncio.ensure_future(client.use([("a", 0, 12), ("c", 12, 30)], lost=frozenset({"b"})))
        made += [token.token async for token in tokens]
        (report,) = await switching
    finally:
        await client.edge.nodes["b"].come_back()
        await client.use(ALONE)
    assert made == undisturbed
    assert (report.mode, report.tail_positions, report.replayed_tokens) == ("standby", 20, 0)


async def test_a_copy_that_fails_because_its_source_dies_leaves_what_was_copied_before(
    client: Client, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.use(TWO, standbys=C_FOR_B)
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    made = [(await anext(tokens)).token]
    session = only_session(client)
    await until(lambda: session.copies.get(STANDBY, 0) == len(PROMPT))
    source = client.edge.nodes["b"]
    under_way = asyncio.Event()

    async def stand_still(size_bytes: int) -> None:
        under_way.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(source.shapers.to("c"), "wait_turn", stand_still)
    made += [(await anext(tokens)).token for _ in range(5)]
    try:
        await asyncio.wait_for(under_way.wait(), TIMEOUT_S)
        await source.vanish()
        switching = asyncio.ensure_future(client.use([("a", 0, 12), ("c", 12, 30)], lost=frozenset({"b"})))
        made += [token.token async for token in tokens]
        (report,) = await switching
    finally:
        await source.come_back()
        await client.use(ALONE)
    assert made == undisturbed
    assert (report.mode, report.replayed_tokens, session.rescues) == ("standby", 0, 1)


async def test_a_copy_of_a_long_prompt_counts_step_by_step(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[int, int]] = []
    hangs = asyncio.Event()
    copy = standby.copy_kv

    async def copies_two_steps(*plans: Any, **how: Any) -> int:
        spans.append(plans[-1])
        if len(spans) > 2:
            hangs.set()
            await asyncio.Event().wait()
        return await copy(*plans, **how)

    monkeypatch.setattr(standby, "copy_kv", copies_two_steps)
    monkeypatch.setattr(standby, "STEP_POSITIONS", 64)
    await client.use(TWO, standbys=C_FOR_B)
    tokens = client.sessions.generate(LONG_PROMPT, 60, SamplingSettings())
    await anext(tokens)
    async with asyncio.timeout(TIMEOUT_S):
        await hangs.wait()
    assert spans == [(0, 64), (64, 128), (128, 192)]
    assert only_session(client).copies == {STANDBY: 128}
    await tokens.aclose()


async def test_a_standby_that_was_started_again_gets_everything_anew(client: Client, undisturbed: list[int]) -> None:
    await client.use(TWO, standbys=C_FOR_B)
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    made = [(await anext(tokens)).token]
    session = only_session(client)
    await until(lambda: STANDBY in session.copies)
    await client.edge.stub("c").EndSession(
        edge_node_pb2.EndSessionRequest(session=session.id)
    )  # it knows nothing of it now
    made += [(await anext(tokens)).token for _ in range(9)]
    await until(lambda: session.copies.get(STANDBY, 0) == session.kv_positions)
    kv = client.edge.nodes["c"].compute.kv
    assert await client.edge.nodes["c"].compute.call(lambda: kv.get(session.id) is not None)
    made += [token.token async for token in tokens]
    assert made == undisturbed


async def test_a_standby_frees_what_it_has_when_its_session_ends_or_its_duty_does(client: Client) -> None:
    await client.use(TWO, standbys=C_FOR_B)
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    await anext(tokens)
    session = only_session(client)
    await until(lambda: STANDBY in session.copies)
    await client.use(TWO)
    assert (await client.edge.used())["c"] == 0
    await client.use(TWO, standbys=C_FOR_B)
    await until(lambda: STANDBY in session.copies)
    assert (await client.edge.used())["c"] > 0
    await tokens.aclose()
    assert await drained(client.edge) == {"a": 0, "b": 0, "c": 0}


async def test_a_node_takes_no_kv_of_layers_that_it_has_nothing_to_do_with(client: Client) -> None:
    await client.use([("a", 0, 12), ("b", 12, 30)])
    chunk = edge_node_pb2.KvChunk(session=1, first_position=0, last_position=1, keys=b"", values=b"")
    chunk.layers.start, chunk.layers.stop = 3, 5
    size = client.edge.nodes["c"].compute.model.page_bytes // client.edge.nodes["c"].compute.model.page_tokens * 2
    chunk.keys, chunk.values = bytes(size), bytes(size)

    async def one() -> AsyncIterator[edge_node_pb2.KvChunk]:
        yield chunk

    with pytest.raises(grpc.aio.AioRpcError, match=r"holds nothing with layers \[3, 5\)"):
        await client.edge.stub("c").ImportKv(one())


@pytest.mark.parametrize("standbys", [[("b", 12, 30)], [("c", 10, 30)]])
async def test_standing_by_for_no_stage_of_another_node_is_refused(client: Client, standbys: Stages) -> None:
    plan = client.edge.plan(TWO, standbys=standbys)
    message = plan_to_message(plan, client.edge.addresses)
    request = edge_node_pb2.LoadStageRequest(plan=message, stage_index=1 if standbys[0][0] == "b" else None)
    with pytest.raises(grpc.aio.AioRpcError, match="no stage of another node"):
        await client.edge.stub(standbys[0][0]).LoadStage(request)
