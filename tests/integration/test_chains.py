"""Chains of one deployment over real processes: added and dropped while answers go on, and a node of one of them killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import openai
import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.rpc.v1 import inference_pb2
from tests.integration.edge import Edge, Stages, generate_request, until

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

FIRST: Stages = [("edge-1", 0, 30)]
SECOND: Stages = [("edge-2", 0, 14), ("edge-3", 14, 30)]


class Answer:
    """An answer that is read in the background: its tokens, and the epoch that each was made in."""

    def __init__(self, edge: Edge, tokens: int) -> None:
        self._edge = edge
        self._count = tokens
        self._begun = asyncio.Event()
        self.tokens: list[int] = []
        self.epochs: list[int] = []
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for event in self._edge.cluster.inference.Generate(generate_request(self._count)):
            self.tokens.append(event.token)
            self.epochs.append(event.epoch)
            if len(self.tokens) == 5:
                self._begun.set()

    async def begun(self) -> Answer:
        """Waits for its first tokens."""
        await asyncio.wait_for(self._begun.wait(), 30)
        return self

    async def ended(self) -> None:
        """Waits for its last token."""
        await self._reading

    async def hang_up(self) -> None:
        """Ends it where it is."""
        self._reading.cancel()
        await asyncio.wait([self._reading])


@pytest_asyncio.fixture(loop_scope="session")
async def one_chain(edge: Edge) -> AsyncIterator[Edge]:
    """The shared edge with all of the model on edge-1; a test that fails must not leave a second chain behind."""
    await edge.apply(FIRST)
    yield edge
    for replica in (await edge.cluster.snapshot()).replicas:
        await edge.cluster.drop_chain(replica.chain)


async def test_a_chain_is_added_and_dropped_while_answers_go_on(one_chain: Edge, undisturbed: list[int]) -> None:
    edge, cluster = one_chain, one_chain.cluster
    answers = [await Answer(edge, 100).begun()]
    added = await cluster.apply(SECOND, "test", add_chain=True)
    assert (added.outcome, added.kind, added.plan.chain, added.sessions) == ("committed", "add_chain", 1, 0)
    answers += [await Answer(edge, 100).begun() for _ in range(3)]
    live = (await cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions
    assert {session.chain for session in live} == {0, 1}
    dropped = await cluster.drop_chain(1, "test")
    assert (dropped.outcome, dropped.kind) == ("committed", "drop_chain")
    assert dropped.sessions >= 1
    assert dropped.moved_bytes > 0
    assert dropped.replayed_tokens == 0
    for answer in answers:
        await answer.ended()
    assert [answer.tokens for answer in answers] == [undisturbed] * 4
    assert [len((await edge.describe(node)).stages) for node in edge.nodes] == [1, 0, 0]
    assert await edge.plan() == FIRST
    assert not (await cluster.snapshot()).replicas


async def test_orders_that_do_not_fit_the_chains_are_refused_and_change_nothing(one_chain: Edge) -> None:
    cluster = one_chain.cluster
    orders = [
        (cluster.drop_chain(0), "the only one"),
        (cluster.drop_chain(1), "there is no chain 1; chains: 0"),
        (cluster.apply(SECOND, chain=1), "there is no chain 1; chains: 0"),
        (cluster.apply([("edge-1", 0, 14), ("edge-2", 14, 30)], add_chain=True), "edge-1 is in chain 0"),
    ]
    before = await one_chain.epoch()
    for order, reason in orders:
        with pytest.raises(grpc.aio.AioRpcError, match=reason) as error:
            await order
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await one_chain.epoch() == before


async def test_a_dead_node_hurts_only_the_sessions_of_its_chain(compiled: CompiledFolders) -> None:
    nodes = [NodeOptions(f"edge-{number}") for number in (1, 2, 3)]
    async with LocalCluster(compiled, nodes, manual=True, context=1024) as cluster:
        await cluster.wait_for_plan()
        edge = Edge(cluster)
        await edge.apply(FIRST)
        undisturbed = await edge.answer(60)
        await cluster.apply(SECOND, "test", add_chain=True)
        answers = [await Answer(edge, 60).begun() for _ in range(2)]
        epochs = [answer.epochs[0] for answer in answers]
        assert len(set(epochs)) == 2
        await cluster.kill("edge-2")
        for answer in answers:
            await answer.ended()
        assert [answer.tokens for answer in answers] == [undisturbed] * 2
        assert sorted(len(set(answer.epochs)) for answer in answers) == [1, 2]

        async def replanned() -> bool:
            replicas = (await cluster.snapshot()).replicas
            return [r.chain for r in replicas] == [1] and "edge-2" not in [s.node for s in replicas[0].stages]

        await until(replanned, "the second chain does without the dead node")
        assert await edge.plan() == FIRST
        assert await edge.answer(20) == undisturbed[:20]
        await edge.drained()


async def test_a_policy_adds_a_chain_by_itself_and_turns_away_what_it_does_not_admit(
    compiled: CompiledFolders, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "[default.replicas]\nmin = 2\nmax = 2\n[default.admission]\nmax_sessions = 2\n"
        "[default.change]\nexpected_nodes = 2\n"
    )
    nodes = [NodeOptions(f"edge-{number}") for number in (1, 2, 3)]
    async with (
        LocalCluster(compiled, nodes, cooldown_s=1.0, beta=0.0, context=1024, policy=policy) as cluster,
        openai.AsyncOpenAI(base_url=cluster.openai_url, api_key="unused", max_retries=0) as client,
    ):
        await cluster.wait_for_plan()
        edge = Edge(cluster)

        async def has_two_chains() -> bool:
            seen = await cluster.snapshot()
            return len(seen.replicas) == 1

        await until(has_two_chains, "the policy's second chain")
        answers = [await Answer(edge, 900).begun() for _ in range(2)]
        assert len({answer.epochs[0] for answer in answers}) == 2, cluster.log_tail("gateway")

        async def is_turned_away() -> openai.RateLimitError | None:
            ask = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            try:
                await client.chat.completions.create(**ask)  # type: ignore[call-overload]
            except openai.RateLimitError as error:
                return error
            return None

        error = await until(is_turned_away, "the limit reaches the gateway")
        assert error.code == "not_admitted"
        assert error.response.headers["Retry-After"] == "5"
        assert "lets this gateway have 2 sessions for now, and it has 2: at most 2 sessions" in error.message
        made = [len(answer.tokens) for answer in answers]

        async def go_on() -> bool:
            return all(len(answer.tokens) > before for answer, before in zip(answers, made, strict=True))

        await until(go_on, "answers under way are not touched by the limit")
        for answer in answers:
            await answer.hang_up()
        shorter = min(len(answer.tokens) for answer in answers)
        assert answers[0].tokens[:shorter] == answers[1].tokens[:shorter]
        await edge.drained()
        assert not await is_turned_away()
