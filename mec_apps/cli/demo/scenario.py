"""The demo's story: a question, a link that degrades, a node that dies, and the same question once more in peace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

import grpc.aio

from mec_apps.cli.demo.board import Board
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.cli.requests import CliError
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_platform.background import BackgroundTasks
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, inference_pb2

QUESTION = "Explain step by step how to plan, plant and care for a vegetable garden through all four seasons."
LONGEST_ANSWER = 1800
"""Tokens that the context has room for; the answer is stopped long before, when everything has happened."""

SHORTEST_ANSWER = 300
TOKENS_AFTERWARDS = 60
"""The answer goes on for so many tokens after the last event."""

DEGRADE_AT = 40
"""Tokens after which the link in use degrades."""

KILL_AFTER = 40
"""Tokens between the end of the first reconfiguration and the death of a node."""

DEGRADED = EmulatedLink(bytes_per_s=30e3)
"""A row of activations takes 77 ms at this rate, ten times the work of all stages."""

CHANGE_TIMEOUT_S = 30.0
SETTLED_DECISIONS = 3
"""Decisions in a row to keep the plan, one a second: start-up no longer disturbs what nodes measure."""

SETTLE_TIMEOUT_S = 12.0
_POLL_S = 0.4

NODES = (
    NodeOptions("edge-1", threads=2, memory_mib=100, links={"*": EmulatedLink(25e6)}),
    NodeOptions("edge-2", threads=1, memory_mib=100, links={"*": EmulatedLink(12.5e6)}),
    NodeOptions("edge-3", threads=1, memory_mib=100, links={"*": EmulatedLink(12.5e6)}),
)
"""Different shares of the CPU (threads) and different EMULATED links; any two of them have room for the model."""


@dataclass(frozen=True, slots=True)
class Change:
    """One reconfiguration that the answer lived through."""

    kind: str
    reason: str
    epoch: int
    plan: str
    pause_ms: float
    moved_bytes: int
    replayed_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found; `as_json` is what `--json` writes."""

    model: str
    question: str
    text: str
    tokens: int
    seconds: float
    tokens_per_s: float
    undisturbed_tokens_per_s: float
    tokens_lost: int
    identical: bool
    reconfigurations: list[Change]
    emulated: list[str]

    @property
    def failure(self) -> str | None:
        """Why the main job was not done, or None."""
        if not self.identical:
            return f"the answer differs from the undisturbed one in {self.tokens_lost} tokens"
        if len(self.reconfigurations) < 2:
            return f"only {len(self.reconfigurations)} reconfigurations happened while the answer was made"
        return None

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


async def run_scenario(cluster: LocalCluster, board: Board) -> Result:
    """Plays the story. Raises CliError where it cannot go on."""
    async with BackgroundTasks() as tasks:
        board.note("step", "waiting for the first plan")
        await cluster.wait_for_plan()
        tasks.start("follow world", _follow_world(cluster, board))
        tasks.start("follow decisions", _follow_decisions(cluster, board))
        tasks.start("follow reconfigurations", _follow_reconfigurations(cluster, board))
        before = await _settled(cluster, board)
        board.headline = "answering"
        board.note("step", f"asking: {board.question}")
        upset = tasks.start("upset", _upset(cluster, board))
        started = time.perf_counter()
        await _answer(cluster, board, LONGEST_ANSWER, enough=lambda: _enough(board, upset.done()))
        seconds = time.perf_counter() - started
        if not upset.done():
            raise CliError(f"the answer ended after {len(board.tokens)} tokens, before everything had happened")
        await upset
        changes = [_change(done) for done in board.reconfigurations if done.plan.epoch > before]
        board.headline = "asking again, undisturbed"
        board.note("step", "the same question again, on a plan that nothing disturbs")
        reference, undisturbed_s = await _undisturbed(cluster, board)
    lost = _differing(board.tokens, reference.tokens)
    assert board.snapshot is not None
    return Result(
        model=board.snapshot.plan.model,
        question=board.question,
        text="".join(text for text, _ in board.answer),
        tokens=len(board.tokens),
        seconds=round(seconds, 2),
        tokens_per_s=round(len(board.tokens) / seconds, 1),
        undisturbed_tokens_per_s=round(len(reference.tokens) / undisturbed_s, 1),
        tokens_lost=lost,
        identical=board.tokens == reference.tokens,
        reconfigurations=changes,
        emulated=[
            "links: a token bucket on each node's sender",
            "CPU shares: the number of threads of each node",
            "memory: what each node says it offers",
        ],
    )


async def _settled(cluster: LocalCluster, board: Board) -> int:
    """Waits until every member has measured its links and the plan made of that stands; returns its epoch."""
    give_up = time.perf_counter() + SETTLE_TIMEOUT_S
    while time.perf_counter() < give_up:
        seen = board.snapshot
        if seen is not None and seen.HasField("plan") and _all_measured(seen) and board.kept >= SETTLED_DECISIONS:
            return seen.plan.epoch
        await asyncio.sleep(_POLL_S)
    if board.snapshot is not None and board.snapshot.HasField("plan"):
        return board.snapshot.plan.epoch
    raise CliError(f"the members did not measure their links; platform log: {cluster.log_tail('platform')}")


def _all_measured(seen: control_plane_pb2.Snapshot) -> bool:
    nodes = {m.name for m in seen.members if m.role == control_plane_pb2.MEMBER_ROLE_NODE}
    return len(seen.members) > len(nodes) and all(
        nodes - {member.name} <= {link.peer for link in member.links} for member in seen.members
    )


def _enough(board: Board, all_happened: bool) -> bool:
    """Whether the answer may be stopped."""
    if not all_happened:
        board.happened_at = len(board.tokens)
    return all_happened and len(board.tokens) >= max(SHORTEST_ANSWER, board.happened_at + TOKENS_AFTERWARDS)


async def _answer(cluster: LocalCluster, board: Board, max_tokens: int, enough: Callable[[], bool]) -> None:
    """Streams the answer to the board until it ends or is enough; closing the stream stops the work on every node."""
    request = inference_pb2.GenerateRequest(
        messages=[inference_pb2.ChatMessage(role="user", content=board.question)], max_tokens=max_tokens
    )
    stream = cluster.inference.Generate(request)
    try:
        async for event in stream:
            board.add_token(event)
            if enough():
                break
    except grpc.aio.AioRpcError as error:
        raise CliError(f"the answer broke off after {len(board.tokens)} tokens: {error.details()}") from error
    finally:
        stream.cancel()


async def _upset(cluster: LocalCluster, board: Board) -> None:
    """Degrades the link in use, waits for the plan to change, then kills a node of the new plan."""
    await board.reach(DEGRADE_AT)
    plan = plan_from_message((await cluster.snapshot()).plan)
    source, target = plan.nodes[0], plan.nodes[1] if len(plan.nodes) > 1 else "gateway"
    board.note("trouble", f"the link {source} -> {target} degrades to {DEGRADED.bytes_per_s / 1e3:g} kB/s (EMULATED)")
    await cluster.emulate(source, {target: DEGRADED})
    await _committed(board, lambda new: new.epoch > plan.epoch and (source, target) not in pairwise(new.nodes))
    await _seen_degraded(board, source, target)
    await board.reach(len(board.tokens) + KILL_AFTER)
    plan = plan_from_message((await cluster.snapshot()).plan)
    victim = plan.nodes[-1]
    board.note("trouble", f"SIGKILL to the process of {victim}, which holds {plan.stages[-1].layers}")
    await cluster.kill(victim)
    await _committed(board, lambda new: new.epoch > plan.epoch and victim not in new.nodes)


async def _undisturbed(cluster: LocalCluster, board: Board) -> tuple[Board, float]:
    """Asks again until an answer has lived through no reconfiguration: three times at most."""
    for _ in range(3):
        reference, before = Board(board.question), len(board.reconfigurations)
        started = time.perf_counter()
        await _answer(cluster, reference, len(board.tokens), enough=lambda: False)
        seconds = time.perf_counter() - started
        await asyncio.sleep(_POLL_S)
        if len(board.reconfigurations) == before:
            return reference, seconds
    raise CliError("the plan changed during each of three repetitions; the machine is too busy to compare")


async def _committed(board: Board, wanted: Callable[[SplitPlan], bool]) -> None:
    """Returns when a plan of that kind has been committed."""
    give_up = time.perf_counter() + CHANGE_TIMEOUT_S
    while not any(
        wanted(plan_from_message(done.plan)) for done in board.reconfigurations if done.outcome == "committed"
    ):
        if time.perf_counter() > give_up:
            raise CliError(f"the plan did not change within {CHANGE_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S / 10)


async def _seen_degraded(board: Board, source: str, target: str) -> None:
    """Returns when the platform's own measurements show the slow link, so that the next plan knows of it."""
    give_up = time.perf_counter() + CHANGE_TIMEOUT_S
    while time.perf_counter() < give_up:
        for member in [] if board.snapshot is None else board.snapshot.members:
            rates = [link.bytes_per_s for link in member.links if link.peer == target]
            if member.name == source and rates and rates[0] < 3 * DEGRADED.bytes_per_s:
                return
        await asyncio.sleep(_POLL_S)
    raise CliError(f"nobody measured that the link {source} -> {target} is slow")


async def _follow_world(cluster: LocalCluster, board: Board) -> None:
    while True:
        board.snapshot = await cluster.snapshot()
        await asyncio.sleep(_POLL_S)


async def _follow_decisions(cluster: LocalCluster, board: Board) -> None:
    stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(cluster.platform)
    async for decision in stub.WatchDecisions(control_plane_pb2.WatchDecisionsRequest()):
        board.kept = board.kept + 1 if decision.kind == "keep" else 0
        if decision.kind not in ("keep", "wait"):
            board.note("decision", f"{decision.kind}: {decision.reason}")


async def _follow_reconfigurations(cluster: LocalCluster, board: Board) -> None:
    stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(cluster.platform)
    async for done in stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest()):
        board.reconfigurations.append(done)
        plan = plan_from_message(done.plan).describe()
        board.note(
            "done",
            f"{done.outcome} epoch {done.plan.epoch}: {plan}; pause {done.pause_ms_max:.0f} ms, "
            f"{done.moved_bytes / 1e6:.2f} MB of KV moved, {done.replayed_tokens} tokens replayed {done.error}".rstrip(),
        )


def _change(done: control_plane_pb2.Reconfiguration) -> Change:
    return Change(
        kind=done.kind,
        reason=done.reason,
        epoch=done.plan.epoch,
        plan=plan_from_message(done.plan).describe(),
        pause_ms=round(done.pause_ms_max, 2),
        moved_bytes=done.moved_bytes,
        replayed_tokens=done.replayed_tokens,
    )


def _differing(tokens: list[int], reference: list[int]) -> int:
    same = sum(a == b for a, b in zip(tokens, reference, strict=False))
    return max(len(tokens), len(reference)) - same
