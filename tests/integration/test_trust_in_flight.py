"""Trust at every instant: what reaches a node that is not trusted, with every message to every node recorded on its way.

The deployment's policy wants trusted nodes for the first four and the last three blocks. Then an untrusted node may see
* plans, and the weights of its own blocks, which tell nothing of what is said;
* of each session its number, its positions, its sampling settings, and when it asks for a token;
* the rows that leave the block in front of its first one, which is a protected block or a later one: so rows behind the last of
  the protected first blocks, and never embeddings or rows between two of these blocks. Its own rows, which it makes of
  those, go into the next node's first block, so the rows that it sends enter the protected last blocks at the earliest;
* KV of blocks between, of its own stage alone;
and never token ids or rows in place of them, tokens that were drawn, KV of protected blocks, or rows behind one of the
last three blocks. That is so through starts, answers, re-splits, changes that are given up, the death of trusted nodes, chains
that come and go, and trust that is revoked while tokens flow: of these moments each test here makes one.

On disk nothing of what is said is anywhere: the last test looks for it in all that the processes have written meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio

from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.split_inference.frames import FrameKind, live_sessions
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_platform.rpc.generate import REPOSITORY
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, edge_node_pb2, inference_pb2
from tests.integration.edge import Edge, Stages, generate_request, until
from tests.integration.traces import core_limit, found_in, message_traces, text_traces, token_traces, written_files
from tests.integration.wiretap import Wiretap, wiretaps

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

TRUSTED = ("safe-1", "safe-2", "safe-3")
OPEN = "open-1"
FIRST_BLOCKS, LAST_BLOCKS, BLOCKS = 4, 3, 30
FREE = frozenset(range(FIRST_BLOCKS, BLOCKS - LAST_BLOCKS))
"""Blocks that need no trust."""

USUAL: Stages = [("safe-1", 0, 10), (OPEN, 10, 20), ("safe-2", 20, 30)]
WIDE: Stages = [("safe-1", 0, 4), (OPEN, 4, 27), ("safe-2", 27, 30)]
NARROW: Stages = [("safe-1", 0, 14), (OPEN, 14, 16), ("safe-2", 16, 30)]
ALONE: Stages = [("safe-3", 0, 30)]
CONTENT = frozenset({FrameKind.TOKENS, FrameKind.ROWS, FrameKind.HIDDEN})
HARMLESS = frozenset({FrameKind.HELLO, FrameKind.PROBE, FrameKind.END, FrameKind.ROLL})
LONG = 350
"""Tokens, for answers in whose middle the policy file is read again: that may take a second."""

ROLLED = 1000
"""More sessions than there are here."""
MARKER = "quartzolith zymurgy vexillology"
"""Words that no file of the product has."""

QUESTION = f"Tell me at length, and step by step, all that there is to say of {MARKER} and of gardens."
SLOW = EmulatedLink(bytes_per_s=30e3)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All that the processes have for files of their own: home, caches, temporary files, and where they run."""
    folder: Path = tmp_path_factory.mktemp("edge")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "MEC_CACHE"):
            patch.setenv(variable, str(folder))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("platform") / "policy.toml"
    trust_all_but(path)
    return path


def trust_all_but(policy: Path, *nodes: str, standbys: int = 0) -> None:
    policy.write_text(
        f"[default.replicas]\nstandbys = {standbys}\n"
        f"[default.trust]\nfirst_blocks = {FIRST_BLOCKS}\nlast_blocks = {LAST_BLOCKS}\nuntrusted_nodes = {list(nodes)}\n"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def taps() -> AsyncIterator[dict[str, Wiretap]]:
    async with wiretaps(*TRUSTED, OPEN) as taps:
        yield taps


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    compiled: CompiledFolders, policy: Path, folder: Path, taps: dict[str, Wiretap]
) -> AsyncIterator[LocalCluster]:
    nodes = [NodeOptions(name, trusted=name != OPEN, arguments=tap.options) for name, tap in taps.items()]
    state = folder / "state.sqlite"
    async with LocalCluster(compiled, nodes, manual=True, context=512, policy=policy, state=state) as cluster:
        await cluster.wait_for_plan()
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def edge(cluster: LocalCluster, taps: dict[str, Wiretap]) -> AsyncIterator[Edge]:
    """On the usual plan while its nodes live. Whatever a test does, nothing has reached the untrusted node that must not."""
    edge = Edge(cluster, QUESTION)
    if cluster.running.issuperset(TRUSTED) and await edge.plan() != USUAL:
        await edge.apply(USUAL)
    yield edge
    await edge.drained()
    check_untrusted(taps[OPEN])
    check_answered({name: tap for name, tap in taps.items() if name != OPEN})
    for tap in taps.values():
        assert not any(each.method.endswith("/ExportKv") for each in tap.seen)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(cluster: LocalCluster) -> list[int]:
    return await Edge(cluster, QUESTION).answer(60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed_long(cluster: LocalCluster) -> list[int]:
    return await Edge(cluster, QUESTION).answer(LONG)


def check_untrusted(tap: Wiretap) -> None:
    """That all which ever reached the node is what the module's docstring says it may see."""
    stages: dict[int, set[int]] = {}
    for request in tap.stages():
        for own in (*request.plan.stages, *request.plan.standbys):
            if own.node == OPEN:
                stages.setdefault(request.plan.epoch, set()).update(range(own.layers.start, own.layers.stop))
    assert stages
    assert all(layers <= FREE for layers in stages.values())
    rows = 0
    for frame in tap.frames():
        assert frame.kind in HARMLESS | {FrameKind.HIDDEN}
        if frame.kind is FrameKind.HIDDEN:
            assert frame.epoch in stages  # rows in front of its own stage there, which begins behind the protected ones
            rows += frame.rows
        elif frame.kind is FrameKind.ROLL:
            assert set(live_sessions(frame)) <= {
                frame.session - n for n in range(ROLLED)
            }  # numbers, given out in order
        elif frame.kind is not FrameKind.HELLO:
            assert not any(frame.payload)
    assert rows > 0, "the test shows nothing: no row has gone through the node"
    for chunk in tap.kv_chunks():
        layers = set(range(chunk.layers.start, chunk.layers.stop))
        assert any(layers <= held for held in stages.values())
    assert not any(frame.kind is FrameKind.RESULT for frame in tap.answered_frames())


def check_answered(others: dict[str, Wiretap]) -> None:
    """That nothing but word of arrival ever came back to the untrusted node from those that it sends its rows to."""
    kinds = set()
    for tap in others.values():
        for inward, outward in tap.streams():
            if any(frame.kind is FrameKind.HELLO and frame.payload == OPEN.encode() for frame in inward):
                kinds |= {frame.kind for frame in outward}
    assert {FrameKind.HELLO} < kinds <= {FrameKind.HELLO, FrameKind.ARRIVED, FrameKind.PROBE_ECHO}


async def test_an_answer_through_re_splits(edge: Edge, undisturbed: list[int], taps: dict[str, Wiretap]) -> None:
    async def re_split() -> None:
        for stages in (WIDE, NARROW, USUAL):
            assert (await edge.apply(stages)).outcome == "committed"

    before = len(list(taps[OPEN].kv_chunks()))
    tokens, _ = await edge.answer_through(60, 8, re_split)
    assert tokens == undisturbed
    assert len(list(taps[OPEN].kv_chunks())) > before  # KV did go there


async def test_whoever_stands_by_is_trusted_with_what_it_copies(
    edge: Edge, undisturbed: list[int], taps: dict[str, Wiretap], policy: Path
) -> None:
    trust_all_but(policy, standbys=1)

    async def protected() -> bool:
        return {at[1:] for at in await edge.standbys()} == {at[1:] for at in await edge.plan()}

    async def unprotected() -> bool:
        return not await edge.standbys()

    await until(protected, "every stage has a standby")
    before = {name: len(list(tap.kv_chunks())) for name, tap in taps.items()}
    assert await edge.answer(60) == undisturbed
    for name in {node for node, _, _ in await edge.standbys()}:
        assert len(list(taps[name].kv_chunks())) > before[name]
    trust_all_but(policy)
    await until(unprotected, "nobody stands by")


async def test_a_plan_that_would_expose_something_is_refused(edge: Edge) -> None:
    for stages in (
        [("safe-1", 0, 3), (OPEN, 3, 20), ("safe-2", 20, 30)],
        [("safe-1", 0, 10), (OPEN, 10, 28), ("safe-2", 28, 30)],
        [("safe-1", 0, 10), (OPEN, 10, 30)],
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=f"node {OPEN} is not trusted"):
            await edge.apply(stages)


async def test_a_change_that_is_given_up_while_it_copies(
    edge: Edge, undisturbed: list[int], taps: dict[str, Wiretap]
) -> None:
    before = len(list(taps[OPEN].kv_chunks()))

    async def give_up() -> grpc.aio.AioRpcError:
        await edge.cluster.emulate("safe-1", {OPEN: SLOW})
        applying = asyncio.ensure_future(edge.apply(WIDE))

        async def copies() -> bool:
            return len(list(taps[OPEN].kv_chunks())) > before or applying.done()

        await until(copies, "KV is on its way")
        await edge.cluster.abort(reason="test")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await applying
        await edge.cluster.emulate("safe-1", {OPEN: EmulatedLink()})
        return error.value

    tokens, error = await edge.answer_through(60, 8, give_up)
    assert tokens == undisturbed
    assert error.code() is grpc.StatusCode.ABORTED
    held = {layer for stage in (await edge.describe(OPEN)).stages for layer in range(*_bounds(stage))}
    assert held == set(range(10, 20))


async def test_a_chain_that_comes_and_goes(edge: Edge, undisturbed: list[int]) -> None:
    async def add_and_drop() -> None:
        await edge.cluster.apply(ALONE, "test", add_chain=True)
        waiting = [asyncio.ensure_future(edge.answer(40)) for _ in range(3)]  # some of them on the new chain
        await until(partial(_has_session, edge, 1), "a session on the chain that was added")
        await edge.cluster.drop_chain(1, "test")
        assert all(tokens == undisturbed[:40] for tokens in await asyncio.gather(*waiting))

    tokens, _ = await edge.answer_through(60, 8, add_and_drop)
    assert tokens == undisturbed


async def test_trust_that_is_revoked_while_tokens_flow(
    edge: Edge, undisturbed_long: list[int], policy: Path, taps: dict[str, Wiretap]
) -> None:
    """Of the node that loses it, which holds the first stage: after the change no token enters it."""

    async def revoke() -> int:
        trust_all_but(policy, "safe-1")

        async def is_left() -> bool:
            plan = await edge.plan()
            return not any(node == "safe-1" and set(range(start, stop)) - FREE for node, start, stop in plan)

        await until(is_left, "the plan does without the node that lost trust")
        return len(taps["safe-1"].seen)

    try:
        tokens, since = await edge.answer_through(LONG, 8, revoke)
        assert tokens == undisturbed_long
        assert not any(frame.kind in CONTENT - {FrameKind.HIDDEN} for frame in taps["safe-1"].frames(since))
        held = {layer for stage in (await edge.describe("safe-1")).stages for layer in range(*_bounds(stage))}
        assert held <= FREE
    finally:
        trust_all_but(policy)
        await until(partial(_applied, edge), "the usual plan")


async def test_with_no_other_plan_an_answer_waits_until_its_nodes_are_trusted_again(
    edge: Edge, undisturbed_long: list[int], policy: Path, taps: dict[str, Wiretap]
) -> None:
    """And gives them nothing more meanwhile; what they held of it is gone at once."""

    async def revoke_and_restore() -> None:
        trust_all_but(policy, *TRUSTED)
        await until(partial(_all_wait, edge), "sessions wait")
        since = {name: len(tap.seen) for name, tap in taps.items()}
        await edge.drained()
        began_s = (await edge.cluster.snapshot()).now_s

        async def has_passed() -> bool:
            return (await edge.cluster.snapshot()).now_s > began_s + 1.5  # reports, ticks, and the policy read again

        await until(has_passed, "a while of the platform's clock")
        for name, tap in taps.items():
            assert not any(frame.kind in CONTENT for frame in tap.frames(since[name])), name
        assert "is not trusted" in await _decision(edge)
        trust_all_but(policy)

    tokens, _ = await edge.answer_through(LONG, 8, revoke_and_restore)
    assert tokens == undisturbed_long
    assert await edge.plan() == USUAL


async def test_a_trusted_node_that_is_killed_is_replaced_by_another_trusted_one(
    edge: Edge, undisturbed: list[int], taps: dict[str, Wiretap]
) -> None:
    async def kill() -> None:
        await edge.cluster.kill("safe-2")
        await taps["safe-2"].stop()

    tokens, _ = await edge.answer_through(60, 20, kill)
    assert tokens == undisturbed
    assert "safe-2" not in {node for node, _, _ in await edge.plan()}


async def test_nothing_of_what_was_said_is_in_any_file(
    edge: Edge, undisturbed: list[int], folder: Path, taps: dict[str, Wiretap]
) -> None:
    """Logs at their most talkative, the platform's state and its journal of decisions, caches, temporary files, core dumps."""
    await ask_over_http(edge)
    text = "".join([event.text async for event in edge.cluster.inference.Generate(generate_request(60, QUESTION))])
    prompt = next(frame for tap in taps.values() for frame in tap.frames() if frame.kind is FrameKind.TOKENS).payload
    traces = [*text_traces(MARKER), *text_traces(text[20:50]), *message_traces(taps.values())]
    traces += [*token_traces(memoryview(prompt).cast("i").tolist()), *token_traces(undisturbed)]
    pids = [facts["pid"] for name, facts in edge.cluster.facts.items() if name in edge.cluster.running]
    assert {core_limit((await edge.describe(name)).process_id) for name in edge.nodes} == {"0"}
    files = written_files(pids, [folder])
    assert {"state.sqlite", "gateway.log", "safe-1.log"} <= {Path(name).name for name in files}
    assert found_in(files, traces) == []
    # And what would be there would be found.
    planted = {f"planted {index}": b"..." + trace + b"..." for index, trace in enumerate(traces)}
    assert len(found_in(planted, traces)) >= len(traces) > 200


async def ask_over_http(edge: Edge) -> None:
    """In ways that go well, and in ways that do not."""
    message = {"role": "user", "content": QUESTION}
    questions: list[tuple[HTTPStatus, dict[str, object]]] = [
        (HTTPStatus.OK, {"messages": [message], "max_tokens": 5, "stop": MARKER}),
        (HTTPStatus.BAD_REQUEST, {"messages": [message], "max_tokens": MARKER}),
        (HTTPStatus.BAD_REQUEST, {"messages": [message | {"role": MARKER}], "temperature": 9}),
        (HTTPStatus.BAD_REQUEST, {"messages": [message], "max_tokens": 10_000}),
        (HTTPStatus.NOT_FOUND, {"messages": [message], "model": MARKER}),
    ]
    async with aiohttp.ClientSession() as http:
        for status, question in questions:
            body = {"model": "smollm2"} | question
            async with http.post(f"{edge.cluster.openai_url}/chat/completions", json=body) as answer:
                assert answer.status == status, await answer.text()


def _bounds(stage: edge_node_pb2.LoadedStage) -> tuple[int, int]:
    return stage.layers.start, stage.layers.stop


async def _sessions(edge: Edge) -> list[inference_pb2.SessionState]:
    return list((await edge.cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions)


async def _has_session(edge: Edge, chain: int) -> bool:
    return any(session.chain == chain for session in await _sessions(edge))


async def _all_wait(edge: Edge) -> bool:
    sessions = await _sessions(edge)
    return bool(sessions) and all(session.state == "waiting" for session in sessions)


async def _applied(edge: Edge) -> bool:
    """Whether the usual plan could be applied: a policy is read again within a second."""
    try:
        await edge.apply(USUAL)
    except grpc.aio.AioRpcError as error:
        if "is not trusted" not in (error.details() or ""):
            raise
        return False
    return True


async def _decision(edge: Edge) -> str:
    """Why the platform does what it does, in its words."""
    call = control_plane_pb2_grpc.AdaptiveOrchestratorStub(edge.cluster.platform).WatchDecisions(
        control_plane_pb2.WatchDecisionsRequest()
    )
    async for decision in call:
        call.cancel()
        return str(decision.reason)
    raise AssertionError("the platform ended its stream")
