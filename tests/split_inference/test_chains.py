"""Chains side by side over real stages in this process: where sessions run, and that a chain that goes takes no token along."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from mec_apps.split_inference.gateway import plan_user
from mec_apps.split_inference.gateway.plan_switcher import OldPlan
from mec_apps.split_inference.gateway.switching import SwitchReport
from mec_apps.split_inference.generation import NotAdmitted, SamplingSettings
from mec_platform.domain.split_plan import SplitPlan
from tests.split_inference.in_process import ALONE, KV_PAGES, PROMPT, TIMEOUT_S, Client, Stages, drained

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SECOND: Stages = [("b", 0, 14), ("c", 14, 30)]
HALF_OF_A_NODE = (KV_PAGES - 1) // 2 * 16 - 1
"""Positions of a prompt that fills half of the KV pages with its answer of one token."""

TOKENS = 60
AHEAD = 15
"""Tokens after which an answer waits: with the prompt, more KV than one round of copying takes."""


class Answers:
    """Answers that begin one after the other, wait after their first tokens for `go_on`, and then flow side by side."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: list[asyncio.Future[list[int]]] = []
        self._going_on = asyncio.Event()

    async def begin(self) -> None:
        reached = asyncio.Event()
        self._asked.append(asyncio.ensure_future(self._answer(reached)))
        await reached.wait()

    async def _answer(self, reached: asyncio.Event) -> list[int]:
        made = []
        async with aclosing(self._client.sessions.generate(PROMPT, TOKENS, SamplingSettings())) as tokens:
            async for token in tokens:
                made.append(token.token)
                if len(made) == AHEAD:
                    reached.set()
                    await self._going_on.wait()
        return made

    def go_on(self) -> None:
        self._going_on.set()

    async def all(self) -> list[list[int]]:
        self.go_on()
        return list(await asyncio.gather(*self._asked))

    @property
    def chains(self) -> list[int]:
        """The chain of every live session, in the order in which they began."""
        return [session.active.plan.chain for session in self._client.sessions.live.values()]


@pytest.fixture
def answers(client: Client, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Chains are taken for equally fast: what tokens take on a busy machine differs from run to run."""
    monkeypatch.setattr(client.sessions, "note_pace", lambda active, token_s: None)
    return Answers(client)


async def end_chain(client: Client, chain: int) -> list[SwitchReport]:
    """What the control plane does to take a chain away."""
    plan = client.sessions.chains[chain].plan
    return await client.use_chain(chain, [], leaving=plan.nodes)


async def test_new_sessions_spread_over_chains_and_answer_alike(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await answers.begin()
    await client.use_chain(1, SECOND)
    for _ in range(3):
        await answers.begin()
    assert sorted(answers.chains) == [0, 0, 1, 1]
    assert await answers.all() == [undisturbed[:TOKENS]] * 4


async def test_a_chain_that_is_dropped_hands_its_sessions_over_without_a_lost_token(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await client.use_chain(1, SECOND)
    for _ in range(4):
        await answers.begin()
    answers.go_on()
    reports = await end_chain(client, 1)
    assert [report.mode for report in reports] == ["pre_copy", "pre_copy"]
    assert answers.chains == [0] * 4
    used = await client.edge.used()
    assert (used["b"], used["c"]) == (0, 0)
    assert used["a"] > 0
    assert await answers.all() == [undisturbed[:TOKENS]] * 4


async def test_sessions_of_a_dropped_chain_are_shared_by_those_that_stay(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await client.use_chain(1, [("b", 0, 30)])
    for _ in range(4):
        await answers.begin()
    answers.go_on()
    await client.use_chain(2, [("c", 0, 30)])
    await end_chain(client, 0)
    assert sorted(answers.chains) == [1, 1, 2, 2]
    assert await answers.all() == [undisturbed[:TOKENS]] * 4


async def test_a_lost_node_hurts_the_sessions_of_its_chain_only_and_they_go_on_at_once(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await client.use_chain(1, SECOND)
    for _ in range(2):
        await answers.begin()
    first, second = sorted(client.sessions.live.values(), key=lambda session: session.active.plan.chain)
    answers.go_on()
    try:
        await client.edge.nodes["b"].vanish()
        assert await answers.all() == [undisturbed[:TOKENS]] * 2
        assert (first.replayed_tokens, second.active.plan.chain) == (0, 0)
        assert second.replayed_tokens > 0
        assert (await client.edge.used())["c"] == 0  # though the way to it went over b
    finally:
        await client.edge.nodes["b"].come_back()
        await client.use(ALONE)


async def test_a_chain_that_is_changed_moves_its_own_sessions_only(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await client.use_chain(1, SECOND)
    for _ in range(2):
        await answers.begin()
    answers.go_on()
    before = {session.id: session.active for session in client.sessions.live.values()}
    (report,) = await client.use_chain(1, [("b", 0, 20), ("c", 20, 30)])
    assert before[report.session].plan.chain == 1
    assert [s.active is before[s.id] for s in client.sessions.live.values()] == [True, False]
    assert await answers.all() == [undisturbed[:TOKENS]] * 2


async def test_a_chain_whose_addition_is_taken_back_leaves_its_sessions_on_the_others(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await answers.begin()
    plan = client.edge.plan(SECOND, chain=1)
    await client.edge.prepare(plan)
    await client.switch(plan)
    await answers.begin()
    assert answers.chains == [0, 1]
    await client.switcher.revert(replace(plan, epoch=0, stages=()), {})
    await client.edge.abort(plan)
    assert answers.chains == [0, 0]
    assert await answers.all() == [undisturbed[:TOKENS]] * 2


async def test_an_end_that_is_taken_back_lets_sessions_start_on_the_chain_again(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await client.use_chain(1, SECOND)
    old = client.sessions.chains[1].plan
    for _ in range(2):
        await answers.begin()
    await client.switch(client.edge.plan([], chain=1))
    assert answers.chains == [0, 0]
    await client.switcher.revert(old, client.edge.addresses)
    await answers.begin()
    assert answers.chains == [0, 0, 1]
    assert await answers.all() == [undisturbed[:TOKENS]] * 3


async def test_without_another_chain_sessions_of_an_ended_one_wait_for_the_next_plan(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    await client.use(ALONE)
    await answers.begin()
    await end_chain(client, 0)
    assert await drained(client.edge) == {"a": 0, "b": 0, "c": 0}
    await client.use(SECOND)
    assert await answers.all() == [undisturbed[:TOKENS]]


async def test_an_ended_chain_does_not_come_back_by_an_older_plan(client: Client) -> None:
    await client.use(ALONE)
    old: SplitPlan = client.edge.plan(SECOND, chain=1)
    await client.use_chain(1, SECOND)
    await end_chain(client, 1)
    with pytest.raises(OldPlan):
        await client.switch(old)
    assert list(client.sessions.chains) == [0]


async def test_a_limit_turns_new_sessions_away_and_ends_none(client: Client, undisturbed: list[int]) -> None:
    await client.use(ALONE)

    async def ask_beyond_it() -> None:
        client.sessions.limit(1, "nodes are busy")
        with pytest.raises(NotAdmitted, match="1 sessions for now, and it has 1: nodes are busy"):
            await client.answer(3)
        assert client.sessions.queued == 1
        client.sessions.limit(2, "nodes are less busy")
        assert await client.answer(3) == undisturbed[:3]

    assert await client.answer_through(60, 5, ask_beyond_it) == undisturbed
    client.sessions.limit(None, "")
    assert await client.answer(3) == undisturbed[:3]


async def test_a_chain_may_be_changed_while_sessions_come_over_from_another(
    client: Client, answers: Answers, undisturbed: list[int]
) -> None:
    """Whichever of the two is first, every session ends up on a plan in use."""
    await client.use([("a", 0, 30)])
    await client.use_chain(1, [("b", 0, 30)])
    for _ in range(4):
        await answers.begin()
    answers.go_on()
    await asyncio.gather(end_chain(client, 1), client.use_chain(0, [("c", 0, 30)], leaving=["a"]))
    in_use = client.sessions.chains[0]
    assert all(session.active is in_use for session in client.sessions.live.values())
    assert await answers.all() == [undisturbed[:TOKENS]] * 4


async def test_an_answer_that_comes_over_to_a_full_chain_waits_for_room(
    client: Client, answers: Answers, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_user, "SAME_PLAN_RETRY_S", 0.05)
    await client.use(ALONE)
    holders = [client.sessions.generate([5] * HALF_OF_A_NODE, 1, SamplingSettings()) for _ in range(2)]
    for holder in holders:
        await anext(holder)
    await client.use_chain(1, SECOND)
    await answers.begin()
    assert answers.chains == [0, 0, 1]
    session = list(client.sessions.live.values())[-1]
    moving = asyncio.ensure_future(end_chain(client, 1))
    answers.go_on()
    async with asyncio.timeout(TIMEOUT_S):
        while session.chain != 0 or session.state != "waiting":  # noqa: ASYNC110 - refused: there is no page left
            await asyncio.sleep(0.01)
    for holder in holders:
        await holder.aclose()
    await moving
    assert await answers.all() == [undisturbed[:TOKENS]]
