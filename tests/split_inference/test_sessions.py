"""Sessions over real stages in this process: the same tokens wherever the cuts are and however plans change."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from mec_apps.split_inference.frames import MAX_ROWS, SAMPLE, Frame, FrameKind, Refusal
from mec_apps.split_inference.gateway import last_copy, plan_user, sessions, switching
from mec_apps.split_inference.gateway.chat import PICTURE_ROW
from mec_apps.split_inference.gateway.plan_switcher import OldPlan
from mec_apps.split_inference.gateway.roll_call import RollCall
from mec_apps.split_inference.gateway.sessions import Session
from mec_apps.split_inference.gateway.switching import SwitchReport
from mec_apps.split_inference.generation import (
    ContextExceeded,
    EmbeddedRows,
    NoPlan,
    Overloaded,
    SamplingSettings,
)
from mec_apps.split_inference.link_shaper import EmulatedLink, LinkShapers
from mec_apps.split_inference.node.kv_compression import KvCompression
from mec_apps.split_inference.peer_link import LinkLost, LinkPool
from mec_platform.domain.failures import Failure, FailureKind
from tests.split_inference.in_process import (
    ALONE,
    CONTEXT,
    KV_PAGES,
    PROMPT,
    THREE,
    TIMEOUT_S,
    TWO,
    Client,
    Edge,
    Stages,
    drained,
)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed_sampled(edge: Edge, undisturbed: list[int]) -> list[int]:
    client = Client(edge)
    await client.use(ALONE)
    tokens = await client.answer(40, sampling=SAMPLED)
    await client.close()
    return tokens


SAMPLED = SamplingSettings(temperature=0.8, top_p=0.95, seed=11)


@pytest.mark.parametrize("stages", [TWO, THREE, [("c", 0, 1), ("a", 1, 29), ("b", 29, 30)]])
async def test_cuts_change_no_token(client: Client, undisturbed: list[int], stages: Stages) -> None:
    await client.use(stages)
    assert await client.answer(60) == undisturbed


async def test_tokens_say_where_they_stand_and_which_plan_made_them(client: Client) -> None:
    await client.use(TWO)
    made = await client.generated(5)
    assert [token.position for token in made] == list(range(len(PROMPT), len(PROMPT) + 5))
    assert {token.epoch for token in made} == {client.switcher.epoch}
    assert all(0 < token.compute_s <= token.round_trip_s for token in made)


async def test_a_prompt_of_many_frames_is_cut_anywhere_alike(client: Client) -> None:
    prompt = [1000 + i % 700 for i in range(MAX_ROWS + 60)]
    await client.use(ALONE)
    whole = await client.answer(12, prompt)
    await client.use(THREE)
    assert await client.answer(12, prompt) == whole


async def test_rows_in_place_of_tokens_are_those_tokens_when_they_are_their_embeddings(
    client: Client, undisturbed: list[int]
) -> None:
    """As a picture's rows enter: through a cut chain, a change that moves their KV, and a replay of all of them."""
    compute = client.edge.nodes["a"].compute
    embedded = await compute.call(lambda: compute.model.embed(np.array(PROMPT[3:21], np.int32)))  # type: ignore[attr-defined]
    pictured = [*PROMPT[:3], *([PICTURE_ROW] * 18), *PROMPT[21:]]
    await client.use(TWO)
    tokens: list[int] = []
    changes = {10: (THREE, "pre_copy"), 25: (TWO, "replay")}
    async with aclosing(
        client.sessions.generate(pictured, 60, SamplingSettings(), [EmbeddedRows(3, embedded)])
    ) as made:
        async for token in made:
            tokens.append(token.token)
            if len(tokens) in changes:
                stages, mode = changes[len(tokens)]
                await client.use(stages, mode=mode)
    assert tokens == undisturbed


async def test_sessions_that_run_together_answer_as_if_alone(client: Client) -> None:
    await client.use(THREE)
    prompts = [[2000 + 10 * i + j for j in range(5 + 3 * i)] for i in range(5)]
    alone = [await client.answer(20, prompt) for prompt in prompts]
    assert await asyncio.gather(*(client.answer(20, prompt) for prompt in prompts)) == alone
    assert len({tuple(answer) for answer in alone}) > 1


async def test_sampling_repeats_itself_with_its_seed_only(client: Client) -> None:
    await client.use(TWO)
    first = await client.answer(20, sampling=SAMPLED)
    assert await client.answer(20, sampling=SAMPLED) == first
    assert await client.answer(20, sampling=replace(SAMPLED, seed=12)) != first


@pytest.mark.parametrize(
    ("before", "after", "mode"),
    [
        (TWO, [("a", 0, 20), ("b", 20, 30)], "pre_copy"),  # re-split
        (TWO, [("c", 0, 12), ("b", 12, 30)], "pre_copy"),  # migration
        (TWO, [("b", 0, 12), ("a", 12, 30)], "pre_copy"),  # nodes change places
        (ALONE, THREE, "pre_copy"),
        (THREE, ALONE, "pre_copy"),
        (TWO, THREE, "stop_and_copy"),
        (THREE, [("b", 0, 30)], "stop_and_copy"),
        (TWO, THREE, "replay"),
    ],
)
async def test_a_plan_change_in_the_middle_changes_no_token(
    client: Client, undisturbed: list[int], before: Stages, after: Stages, mode: str
) -> None:
    await client.use(before)
    moved: list[tuple[Session, SwitchReport]] = []

    async def change() -> None:
        (session,) = client.sessions.live.values()
        (report,) = await client.use(after, mode=mode)
        moved.append((session, report))

    assert await client.answer_through(60, 10, change) == undisturbed
    ((session, report),) = moved
    assert report.mode == mode
    if mode == "replay":
        assert report.replayed_tokens > len(PROMPT)
        return
    assert session.replayed_tokens == 0  # nothing was missing and had to be made up for
    if mode == "pre_copy":
        assert report.rounds >= 1
        assert report.precopied_bytes > 0
        # What tokens added during the last copy comes with the first frame, or where it is much with a copy.
        assert not (report.paused_bytes and report.tail_positions)
    else:
        assert (report.precopied_bytes, report.tail_positions, report.rounds) == (0, 0, 0)
        assert report.paused_bytes > 0


@pytest.mark.parametrize("works", [True, False], ids=["copied beside its token", "that copy fails"])
async def test_the_position_of_the_token_under_way_comes_while_the_token_does(
    client: Client, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch, *, works: bool
) -> None:
    asked: list[tuple[int, int]] = []
    copy = last_copy.copy_kv

    async def copies(*plans: Any, wait_s: float = 0.0, **how: Any) -> int:
        if wait_s:
            asked.append(plans[-1])
            if not works:
                raise TimeoutError
        return await copy(*plans, wait_s=wait_s, **how)

    monkeypatch.setattr(last_copy, "copy_kv", copies)
    monkeypatch.setattr(switching, "ROW_SHARE", 1e9)  # no row is computed again
    monkeypatch.setattr(switching, "TAIL_POSITIONS", 1000)  # however slow the copies before it were
    await client.use(TWO)
    reports: list[SwitchReport] = []

    async def change() -> None:
        reports.extend(await client.use([("c", 0, 12), ("a", 12, 30)], mode="pre_copy"))

    assert await client.answer_through(60, 10, change) == undisturbed
    (report,) = reports
    assert (report.mode, report.tail_positions, report.replayed_tokens) == ("pre_copy", 0, 0)
    assert report.paused_bytes > 0
    ((first, last),) = asked
    assert first < last


async def test_kv_that_moves_as_int8_takes_half_the_bytes_and_the_answer_goes_on(
    client: Client, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the change may differ from the undisturbed answer; before it nothing may."""
    await client.use(TWO)
    service = client.edge.nodes["b"].service
    monkeypatch.setattr(service, "_settings", replace(service._settings, kv_compression=KvCompression.INT8))
    reports: list[SwitchReport] = []

    async def change() -> None:
        reports.extend(await client.use([("a", 0, 12), ("c", 12, 30)], mode="stop_and_copy"))

    answer = await client.answer_through(60, 10, change)
    assert len(answer) == 60
    assert answer[:10] == undisturbed[:10]
    (report,) = reports
    positions, odd = divmod(
        report.paused_bytes, 18 * 2 * 3 * (64 + 4)
    )  # layers, keys and values, heads, int8 and a scale
    assert odd == 0
    assert positions >= len(PROMPT) + 10


async def test_a_chain_of_changes_changes_no_token(client: Client, undisturbed: list[int]) -> None:
    await client.use(TWO)

    async def changes() -> None:
        for stages in (THREE, [("c", 0, 15), ("a", 15, 30)], [("b", 0, 30)], TWO):
            await client.use(stages)

    assert await client.answer_through(60, 5, changes) == undisturbed


async def test_a_sampled_answer_is_the_same_through_a_change(client: Client, undisturbed_sampled: list[int]) -> None:
    await client.use(TWO)
    answer = await client.answer_through(40, 8, lambda: client.use(THREE), SAMPLED)
    assert answer == undisturbed_sampled


async def test_a_new_epoch_of_the_same_stages_moves_no_kv(client: Client, undisturbed: list[int]) -> None:
    await client.use(TWO)
    reports: list[SwitchReport] = []

    async def change() -> None:
        reports.extend(await client.use(TWO))

    assert await client.answer_through(60, 10, change) == undisturbed
    assert [(report.mode, report.precopied_bytes, report.paused_bytes) for report in reports] == [("none", 0, 0)]


async def test_several_sessions_move_together_and_none_is_disturbed(client: Client, undisturbed: list[int]) -> None:
    await client.use(TWO)
    reached = [asyncio.Event() for _ in range(3)]

    async def change() -> list[SwitchReport]:
        await asyncio.gather(*(event.wait() for event in reached))
        return await client.use(THREE)  # type: ignore[no-any-return]

    async def ask(event: asyncio.Event) -> list[int]:
        return await client.answer(60, on_token=lambda made: event.set() if made >= 5 else None)

    *answers, reports = await asyncio.gather(*(ask(event) for event in reached), change())
    assert answers == [undisturbed] * 3
    assert len(reports) == 3


async def test_an_aborted_plan_takes_sessions_back_and_changes_no_token(client: Client, undisturbed: list[int]) -> None:
    await client.use(TWO)
    old = client.sessions.active
    assert old is not None

    async def abort_after_switch() -> None:
        plan = client.edge.plan(THREE)
        await client.edge.prepare(plan)
        await client.switch(plan)
        await client.switcher.revert(old.plan, client.edge.addresses)
        await client.edge.abort(plan)

    assert await client.answer_through(60, 10, abort_after_switch) == undisturbed
    assert client.switcher.epoch == old.plan.epoch


async def test_an_abort_does_not_wait_for_a_switch_whose_sessions_cannot_go_on(
    client: Client, undisturbed: list[int]
) -> None:
    await client.use(TWO)
    old = client.sessions.active
    assert old is not None

    async def abort_in_the_middle() -> None:
        plan = client.edge.plan(THREE)
        await client.edge.prepare(plan)
        await client.edge.abort(plan)  # its nodes refuse whatever comes for it
        switching = asyncio.ensure_future(client.switch(plan, mode="replay"))
        while not any(session.state == "waiting" for session in client.sessions.live.values()):
            await asyncio.sleep(0)
            assert not switching.done()
        await client.switcher.revert(old.plan, client.edge.addresses)
        with pytest.raises(OldPlan, match="came while sessions were moving"):
            await switching

    assert await asyncio.wait_for(client.answer_through(60, 10, abort_in_the_middle), TIMEOUT_S) == undisturbed
    assert client.switcher.epoch == old.plan.epoch


async def test_a_node_that_is_not_trusted_any_more_keeps_nothing_of_what_was_said(
    client: Client, undisturbed: list[int]
) -> None:
    """Its KV memory is looked at, freed pages and pages of sessions that ended before included."""
    await client.use(TWO)
    assert await client.answer(60) == undisturbed
    left, model = client.edge.nodes["b"], client.edge.nodes["b"].compute.model

    async def held() -> set[int]:
        keys, values = model.keys, model.values  # type: ignore[attr-defined]
        return await left.compute.call(lambda: {n for n in range(30) if keys[n].any() or values[n].any()})

    async def distrust() -> None:
        assert await held() == set(range(12, 30))
        plan = client.edge.plan([("a", 0, 12), ("c", 12, 30)])
        await client.edge.prepare(plan)
        (report,) = await client.switch(
            plan, lost=frozenset({"b"})
        )  # as it is told where a node is not trusted any more
        assert (report.mode, report.precopied_bytes + report.paused_bytes) == ("replay", 0)
        await client.edge.commit(plan)
        assert await held() == set()

    assert await client.answer_through(60, 10, distrust) == undisturbed
    assert await held() == set()


async def test_a_node_that_has_no_time_is_not_given_the_same_work_ever_faster(
    client: Client, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "TOKEN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(plan_user, "SAME_PLAN_RETRY_S", 0.01)
    await client.use(TWO)
    may_go_on = threading.Event()
    busy = asyncio.ensure_future(client.edge.nodes[TWO[0][0]].compute.call(lambda: may_go_on.wait(TIMEOUT_S)))
    answering = asyncio.ensure_future(client.answer(60))

    def waited() -> list[str]:
        return re.findall(r"no token within ([0-9.]+) s", caplog.text)

    async with asyncio.timeout(TIMEOUT_S):
        while len(waited()) < 5:
            await asyncio.sleep(0.01)
            assert not answering.done()
    monkeypatch.undo()
    may_go_on.set()
    assert await busy
    assert await answering == undisturbed
    assert waited()[:5] == ["0.02", "0.04", "0.08", "0.16", "0.16"]


async def test_a_node_that_was_not_told_of_an_end_is_told_by_the_roll_call(
    client: Client, undisturbed: list[int]
) -> None:
    """The way along the chain breaks at that moment; sessions that live, and those of other gateways, are left alone."""
    await client.use(TWO)
    second = TWO[1][0]
    compute = client.edge.nodes[second].compute
    ends, lives = (client.sessions.generate(PROMPT, 60, SamplingSettings()) for _ in range(2))
    made = [(await anext(lives)).token]
    await anext(ends)
    kept, lost = client.sessions.live
    foreign = 5 << 32 | 1
    await compute.call(lambda: compute.kv.reserve(foreign, 1))
    client.links.get(TWO[0][0]).break_off(Failure(FailureKind.LINK_BROKEN, "test"))
    await ends.aclose()
    roll_call = RollCall(client.sessions, client.links)
    assert lost in await compute.call(lambda: compute.kv.sessions)
    async with asyncio.timeout(TIMEOUT_S):
        while lost in await compute.call(lambda: compute.kv.sessions):
            roll_call.call()
            await asyncio.sleep(0.01)
    assert set(await compute.call(lambda: compute.kv.sessions)) == {kept, foreign}
    made += [token.token async for token in lives]
    assert made == undisturbed
    await compute.call(lambda: compute.kv.end(foreign))


async def test_a_session_that_ends_on_a_plan_that_is_aborted_leaves_no_kv(client: Client) -> None:
    await client.use([("a", 0, 12), ("c", 12, 30)])
    old = client.sessions.active
    assert old is not None
    plan = client.edge.plan([("a", 0, 12), ("b", 12, 30)])
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    await anext(tokens)
    await client.edge.prepare(plan)
    await client.switch(plan)
    await anext(tokens)
    await tokens.aclose()
    await client.switcher.revert(old.plan, client.edge.addresses)
    await client.edge.abort(plan)
    assert await drained(client.edge) == {"a": 0, "b": 0, "c": 0}


async def test_a_session_cancelled_while_its_kv_is_copied_leaves_none_behind(client: Client) -> None:
    await client.use(TWO)
    client.edge.nodes["b"].shapers.emulate({"c": EmulatedLink(bytes_per_s=3_000_000)})
    try:
        plan = client.edge.plan([("a", 0, 12), ("c", 12, 30)])
        await client.edge.prepare(plan)
        tokens = client.sessions.generate([1000 + i for i in range(200)], 60, SamplingSettings())
        await anext(tokens)
        switching = asyncio.ensure_future(client.switch(plan))
        while not (await client.edge.used())["c"]:
            assert not switching.done()
        await tokens.aclose()
        await switching
        assert (await drained(client.edge))["c"] == 0
        await client.edge.commit(plan)
    finally:
        client.edge.nodes["b"].shapers.emulate({"c": EmulatedLink()})


async def test_a_copy_over_a_link_that_turned_slow_is_given_up_for_a_replay(client: Client) -> None:
    prompt = [1000 + i for i in range(300)]
    await client.use(ALONE)
    alone = await client.answer(10, prompt)
    await client.use(TWO)
    client.edge.nodes["b"].shapers.emulate({"c": EmulatedLink(bytes_per_s=100_000)})
    try:
        plan = client.edge.plan([("a", 0, 12), ("c", 12, 30)])
        await client.edge.prepare(plan)
        tokens = client.sessions.generate(prompt, 10, SamplingSettings())
        made = [(await anext(tokens)).token]
        (report,) = await client.switch(plan, replay_s=0.0)
        made += [token.token async for token in tokens]
        await client.edge.commit(plan)
        assert made == alone
        assert report.mode == "replay"
    finally:
        client.edge.nodes["b"].shapers.emulate({"c": EmulatedLink()})


async def test_closing_the_generator_frees_the_session_on_every_node(client: Client) -> None:
    await client.use(THREE)
    tokens = client.sessions.generate(PROMPT, 60, SamplingSettings())
    for _ in range(3):
        await anext(tokens)
    assert set((await client.edge.used()).values()) == {3}  # 43 positions
    await tokens.aclose()
    assert client.sessions.live == {}
    assert await drained(client.edge) == {"a": 0, "b": 0, "c": 0}


async def test_cancelling_the_reader_frees_the_session_on_every_node(client: Client) -> None:
    await client.use(THREE)
    reading = asyncio.Event()
    reader = asyncio.ensure_future(client.answer(400, on_token=lambda made: reading.set()))
    await reading.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert client.sessions.live == {}
    assert await drained(client.edge) == {"a": 0, "b": 0, "c": 0}


async def test_a_lost_node_is_reported_and_its_tokens_are_replayed_on_the_next_plan(
    client: Client, undisturbed: list[int]
) -> None:
    await client.use(TWO)

    async def lose_b() -> None:
        await client.edge.nodes["b"].vanish()
        await client.use([("a", 0, 20), ("c", 20, 30)], lost=frozenset({"b"}))

    try:
        assert await client.answer_through(60, 10, lose_b) == undisturbed
        assert "b" in client.failures
    finally:
        await client.edge.nodes["b"].come_back()
        await client.use(ALONE)  # b learns the epoch and that it holds nothing


async def test_a_short_break_of_a_link_is_replayed_on_the_same_plan(
    client: Client, undisturbed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_user, "SAME_PLAN_RETRY_S", 0.05)
    await client.use(TWO)
    node = client.edge.nodes["a"]

    async def break_shortly() -> None:
        await node.vanish()
        await node.come_back()

    assert await client.answer_through(60, 10, break_shortly) == undisturbed
    assert client.failures == ["a"]


async def test_a_node_without_room_is_an_overload_and_the_session_is_gone(client: Client) -> None:
    await client.use(TWO)
    positions = (KV_PAGES - 1) // 2 * 16
    holders = [client.sessions.generate([5] * (positions - 1), 1, SamplingSettings()) for _ in range(2)]
    for holder in holders:
        await anext(holder)
    with pytest.raises(Overloaded, match="KV pages needed"):
        await client.answer(200)
    assert len(client.sessions.live) == 2
    for holder in holders:
        await holder.aclose()
    assert len(await client.answer(3)) == 3


async def test_no_more_sessions_than_allowed_run_at_once(client: Client) -> None:
    few = Client(client.edge, max_sessions=1)
    await few.use(ALONE)
    running = few.sessions.generate(PROMPT, 10, SamplingSettings())
    await anext(running)
    with pytest.raises(Overloaded, match="1 sessions run already"):
        await few.answer(1)
    await running.aclose()
    assert len(await few.answer(1)) == 1
    await few.close()


async def test_requests_that_waited_for_the_first_plan_keep_the_limit_too(client: Client) -> None:
    few = Client(client.edge, max_sessions=2)
    asked = [asyncio.ensure_future(few.answer(10)) for _ in range(4)]
    await asyncio.sleep(0)
    await few.use(ALONE)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers if isinstance(answer, BaseException)] == [Overloaded] * 2
    await few.close()


@pytest.mark.parametrize(("prompt", "max_tokens"), [([], 1), ([1] * CONTEXT, 1), ([1], CONTEXT)])
async def test_what_does_not_fit_the_context_is_refused_before_anything_is_sent(
    client: Client, prompt: list[int], max_tokens: int
) -> None:
    with pytest.raises(ContextExceeded):
        await client.answer(max_tokens, prompt)


async def test_without_a_plan_a_request_says_so_after_a_while(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_user, "FIRST_PLAN_TIMEOUT_S", 0.05)
    with pytest.raises(NoPlan, match="no plan to run on"):
        await client.answer(1)


async def test_a_plan_older_than_the_one_in_use_is_refused(client: Client) -> None:
    old = client.edge.plan(ALONE)
    await client.use(TWO)
    before = client.sessions.active
    with pytest.raises(OldPlan, match=f"epoch {old.epoch}"):
        await client.switch(old)
    assert client.sessions.active is before


async def test_a_plan_with_a_node_that_does_not_answer_changes_nothing(client: Client) -> None:
    await client.use(TWO)
    before = client.sessions.active
    plan = client.edge.plan([("a", 0, 12), ("nobody", 12, 30)])
    with pytest.raises(LinkLost, match="no address for nobody"):
        await client.switch(plan)
    assert client.sessions.active is before
    assert len(await client.answer(2)) == 2


async def refusal_of(client: Client, node: str, frame: Frame) -> tuple[Refusal, str]:
    """What a node answers to a frame that a gateway should not have sent."""
    answers: asyncio.Queue[Frame] = asyncio.Queue()
    hello = Frame(FrameKind.HELLO, session=frame.session >> 32 << 32, payload=b"stranger")
    pool = LinkPool(hello, LinkShapers(), lambda _, answer: answers.put_nowait(answer), lambda *_: None)
    link = await pool.connect(node, client.edge.addresses[node], TIMEOUT_S)
    link.send(frame)
    answer = await asyncio.wait_for(answers.get(), TIMEOUT_S)
    await pool.close()
    assert answer.kind is FrameKind.REFUSED
    assert (answer.epoch, answer.session, answer.position) == (frame.epoch, frame.session, frame.position)
    return Refusal(answer.flags), answer.payload.decode()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"epoch": 0}, Refusal.STALE_EPOCH),
        ({"epoch": 2**40}, Refusal.UNKNOWN_EPOCH),
        ({"position": 5}, Refusal.GAP),
        ({"position": 0, "rows": 2}, Refusal.BAD_FRAME),
        ({"rows": 2**31, "payload": b""}, Refusal.BAD_FRAME),
        ({"kind": FrameKind.HIDDEN}, Refusal.BAD_FRAME),
        ({"payload": (49152).to_bytes(4, "little")}, Refusal.BAD_FRAME),
        ({"payload": b"\xff\xff\xff\xff"}, Refusal.BAD_FRAME),
    ],
)
async def test_a_frame_that_a_stage_cannot_run_is_refused_and_takes_no_page(
    client: Client, changes: dict[str, Any], code: Refusal
) -> None:
    await client.use(TWO)
    session = next(client.edge.numbers) << 32 | 1
    good = Frame(FrameKind.TOKENS, client.switcher.epoch, session, 0, 1, SAMPLE, payload=bytes(4))
    refused, reason = await refusal_of(client, "a", replace(good, **changes))
    assert refused is code
    assert reason


async def test_a_stage_of_an_old_epoch_is_not_loaded(client: Client) -> None:
    await client.use(TWO)
    stale = replace(client.edge.plan(THREE), epoch=client.switcher.epoch)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.edge.prepare(stale)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(await client.answer(2)) == 2
