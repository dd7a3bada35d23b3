"""`mec bench reconfigure`: random live re-splits in the middle of answers; every answer must be the undisturbed one.

Nodes are killed, and plans aborted, among the re-splits. Pauses are told as the platform reports them and as a client sees
them: the gap in front of the first token of a new plan, less the usual gap on that plan.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import grpc.aio
import numpy as np

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, inference_pb2, types_pb2
from tests.benchmarks.answers import QUESTION, Answer, ask
from tests.benchmarks.machine import BenchmarkError, at_least, at_most, machine

TOKENS = 120
EARLIEST, LATEST = 8, 80
"""Tokens after which a re-split begins: it ends within the answer."""

CHANGES_PER_CONTEXT = 8
TOKENS_BETWEEN = 25
"""Tokens between two re-splits of one long answer: the usual gap is taken from them."""

USUAL_TOKENS = 12
TELLABLE_MS = 1.0
"""Shorter pauses count as this one where lengths are compared: single tokens differ by as much without a change."""

RECOVERED_S = 30.0
QUESTION_TOKENS = 20
"""Of the question; longer prompts repeat it."""

_NODES = ("edge-1", "edge-2", "edge-3")

Stages = list[tuple[str, int, int]]


@dataclass(slots=True)
class _Counts:
    """What became of all answers and changes."""

    identical: int = 0
    lost: int = 0
    repeated: int = 0
    done: list[control_plane_pb2.Reconfiguration] = field(default_factory=list)
    seen_ms: list[float] = field(default_factory=list)
    detected_ms: list[float] = field(default_factory=list)
    recovered_ms: list[float] = field(default_factory=list)
    aborted: int = 0

    def judge(self, tokens: Sequence[int], reference: Sequence[int]) -> None:
        """Counts an answer; a token more than there should be was repeated."""
        self.identical += tokens == reference
        differing = sum(a != b for a, b in zip(tokens, reference, strict=False))
        self.lost += max(0, len(reference) - len(tokens)) + differing
        self.repeated += max(0, len(tokens) - len(reference))


def run(
    count: int, seed: int, kills: int = 0, aborts: int = 0, contexts: Sequence[int] = (), kv_compression: str = "none"
) -> dict[str, Any]:
    """One answer of TOKENS tokens per change; `contexts` are lengths at which pauses are compared besides."""
    return asyncio.run(_run(count, random.Random(seed), kills, aborts, contexts, kv_compression))


async def _run(
    count: int, choices: random.Random, kills: int, aborts: int, contexts: Sequence[int], kv_compression: str
) -> dict[str, Any]:
    nodes = [NodeOptions(name, kv_compression=kv_compression) for name in _NODES]
    context = max(2048, *(_room_for(length) for length in contexts), 0)
    compiled = ensure_compiled("smollm2", "int4", None)
    async with LocalCluster(compiled, nodes, manual=True, context=context) as cluster:
        plan = await cluster.wait_for_plan()
        blocks = plan.stages[-1].layers.stop
        reference = (await ask(cluster, TOKENS)).tokens
        kinds = ["kill"] * kills + ["abort"] * aborts + ["re-split"] * (count - kills - aborts)
        choices.shuffle(kinds)
        counts = _Counts()
        for kind in kinds:
            current = _stages(await cluster.wait_for_plan())
            change = {"kill": _kill, "abort": _abort, "re-split": _re_split}[kind]
            answer = await change(cluster, choices, blocks, current, counts)
            counts.judge(answer.tokens, reference)
        lengths = {length: await _pauses_at(cluster, length, blocks) for length in contexts}
    return _result(count, counts, lengths, kv_compression)


def _result(count: int, counts: _Counts, lengths: dict[int, dict[str, float]], kv_compression: str) -> dict[str, Any]:
    done = [each for each in counts.done if each.replayed_tokens == 0]
    metrics = {
        "reconfigurations": float(count),
        "identical": float(counts.identical),
        "tokens_lost": float(counts.lost),
        "tokens_repeated": float(counts.repeated),
        "aborted": float(counts.aborted),
        "sessions_moved": float(sum(each.sessions for each in counts.done)),
        **_percentiles("pause_ms", [each.pause_ms_max for each in done]),
        **_percentiles("pause_seen_ms", counts.seen_ms),
        **_percentiles("held_ms", [each.held_ms_max for each in done]),
        "tail_positions_mean": _mean([each.tail_positions_max for each in done]),
        "whole_ms_p50": _percentiles("", [each.switch_ms for each in counts.done]).get("_p50", 0.0),
        "moved_bytes_mean": _mean([each.moved_bytes for each in counts.done]),
        "by_replay": float(len(counts.done) - len(done)),
        "by_stop_and_copy": float(sum(each.transfer.startswith("stop-and-copy") for each in counts.done)),
        "replayed_tokens": float(sum(each.replayed_tokens for each in counts.done)),
        **_percentiles("killed_detected_ms", counts.detected_ms),
        **_percentiles("killed_recovered_ms", counts.recovered_ms),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    for length, figures in lengths.items():
        metrics |= {f"context_{length}_{name}": value for name, value in figures.items()}
    criteria = [at_most("tokens_lost", counts.lost, 0), at_most("tokens_repeated", counts.repeated, 0)]
    if kv_compression == "none":
        criteria.append(at_least("identical", counts.identical, count))
    if counts.done:
        criteria.append(at_least("sessions_moved", metrics["sessions_moved"], len(counts.done)))
    if counts.seen_ms:
        criteria += [
            at_most("pause_seen_ms_p50", metrics["pause_seen_ms_p50"], 5),
            at_most("pause_seen_ms_p99", metrics["pause_seen_ms_p99"], 20),
        ]
    if lengths:
        shortest, longest = (lengths[length] for length in (min(lengths), max(lengths)))
        ratio = max(longest["pause_seen_ms_p50"], TELLABLE_MS) / max(shortest["pause_seen_ms_p50"], TELLABLE_MS)
        criteria.append(at_most("pause_of_longest_context_to_shortest", round(ratio, 3), 1.5))
        criteria.append(at_least("throughput_while_copying", longest["throughput_while_copying"], 0.85))
        criteria += [at_least(f"context_{n}_identical", each["identical"], 1) for n, each in lengths.items()]
    return {"bench": "reconfigure", "machine": machine(), "metrics": metrics, "criteria": criteria}


async def _re_split(
    cluster: LocalCluster, choices: random.Random, blocks: int, current: Stages, counts: _Counts
) -> Answer:
    stages = _other_plan(choices, blocks, current)

    async def apply() -> None:
        counts.done.append(await cluster.apply(stages, "benchmark"))

    answer = await _answer_through(cluster, choices.randint(EARLIEST, LATEST), apply)
    counts.seen_ms += _pauses_seen(answer)
    return answer


async def _abort(
    cluster: LocalCluster, choices: random.Random, blocks: int, current: Stages, counts: _Counts
) -> Answer:
    """A plan with a node that hangs: it is given up, and the old one goes on."""
    stages = current
    while not (fresh := {name for name, _, _ in stages} - {name for name, _, _ in current}):
        if len(current) == len(_NODES):  # every node is in use: first to a plan that leaves one free
            await cluster.apply([("edge-1", 0, blocks)], "benchmark")
            current = [("edge-1", 0, blocks)]
        stages = _other_plan(choices, blocks, current)
    process = int(cluster.facts[min(fresh)]["pid"])

    async def apply() -> None:
        os.kill(process, signal.SIGSTOP)
        try:
            await cluster.apply(stages, "benchmark: to be aborted")
        except grpc.aio.AioRpcError:
            counts.aborted += 1
        finally:
            os.kill(process, signal.SIGCONT)

    answer = await _answer_through(cluster, choices.randint(EARLIEST, LATEST), apply)
    await _all_here(cluster)
    return answer


async def _kill(cluster: LocalCluster, choices: random.Random, blocks: int, current: Stages, counts: _Counts) -> Answer:
    """SIGKILL to a node of the plan; the platform finds another one and the answer goes on there."""
    victim = choices.choice([name for name, _, _ in current])
    times: dict[str, float] = {}

    async def kill() -> None:
        decisions = control_plane_pb2_grpc.AdaptiveOrchestratorStub(cluster.platform).WatchDecisions(
            control_plane_pb2.WatchDecisionsRequest()
        )
        await decisions.read()  # the stream stands: it begins with what is known
        times["killed"] = time.monotonic()
        await cluster.kill(victim)
        async with asyncio.timeout(RECOVERED_S):
            while not isinstance(decision := await decisions.read(), control_plane_pb2.Decision) or (
                decision.kind == "keep" or decision.at_s < times["killed"]
            ):
                if decision is grpc.aio.EOF:
                    raise BenchmarkError("the platform ended the stream of its decisions")
            times["decided"] = decision.at_s
        decisions.cancel()

    answer = await _answer_through(cluster, choices.randint(EARLIEST, LATEST), kill)
    counts.detected_ms.append((times["decided"] - times["killed"]) * 1e3)
    first = next((at for at, epoch in zip(answer.came_s, answer.epochs, strict=True) if epoch > answer.epochs[0]), None)
    if first is not None:
        counts.recovered_ms.append((first - times["killed"]) * 1e3)
    await cluster.start_node(victim)
    await _all_here(cluster)
    return answer


async def _all_here(cluster: LocalCluster) -> None:
    """Waits until the platform counts on every node again."""
    async with asyncio.timeout(RECOVERED_S):
        while True:
            seen = await cluster.snapshot()
            if {member.name for member in seen.members} >= set(_NODES):
                return
            await asyncio.sleep(0.1)


async def _answer_through(cluster: LocalCluster, after_tokens: int, change: Callable[[], Awaitable[None]]) -> Answer:
    reached = asyncio.Event()

    def watch(count: int) -> None:
        if count >= after_tokens:
            reached.set()

    async def disturb() -> None:
        await reached.wait()
        await change()

    answer, _ = await asyncio.gather(ask(cluster, TOKENS, watch), disturb())
    return answer


async def _pauses_at(cluster: LocalCluster, length: int, blocks: int) -> dict[str, float]:
    """Several re-splits in the middle of one answer to a question of about `length` tokens, the same for every length."""
    question = " ".join([QUESTION] * max(1, round(length / QUESTION_TOKENS)))
    tokens = TOKENS_BETWEEN * (CHANGES_PER_CONTEXT + 2)
    # Any two of these differ by half of the layers on other nodes.
    half = blocks // 2
    plans: list[Stages] = [[("edge-1", 0, half), (other, half, blocks)] for other in ("edge-2", "edge-3")]
    await cluster.apply(plans[1], "benchmark")
    reference = await ask(cluster, tokens, question=question)
    reached = [asyncio.Event() for _ in range(CHANGES_PER_CONTEXT)]
    windows: list[tuple[float, float]] = []
    done: list[control_plane_pb2.Reconfiguration] = []

    contexts: list[int] = []

    def watch(count: int) -> None:
        for index, event in enumerate(reached, start=1):
            if count >= index * TOKENS_BETWEEN:
                event.set()

    async def changes() -> None:
        for index, event in enumerate(reached):
            await event.wait()
            live = (await cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions
            if not live:  # the model has said all it had to say
                return
            contexts.append(live[0].positions)
            began = time.monotonic()
            done.append(await cluster.apply(plans[index % 2], "benchmark"))
            windows.append((began + done[-1].prepare_ms / 1e3, time.monotonic()))

    changing = asyncio.ensure_future(changes())
    answer = await ask(cluster, tokens, watch, question)
    for event in reached:
        event.set()
    await changing
    if not windows:
        raise BenchmarkError(f"the answer was over after {len(answer.tokens)} tokens, before a change")
    return {
        "identical": float(answer.tokens == reference.tokens),
        "changes": float(len(windows)),
        "positions_mean": _mean(contexts),
        **_percentiles("pause_ms", [each.pause_ms_max for each in done]),
        **_percentiles("pause_seen_ms", _pauses_seen(answer)),
        **_percentiles("held_ms", [each.held_ms_max for each in done]),
        "tail_positions_mean": _mean([each.tail_positions_max for each in done]),
        "moved_bytes_mean": _mean([each.moved_bytes for each in done]),
        "by_replay": float(sum(each.replayed_tokens > 0 for each in done)),
        "copy_ms_p50": round(median((last - first) * 1e3 for first, last in windows), 1),
        "throughput_while_copying": round(_throughput(answer, windows), 3),
    }


def _room_for(length: int) -> int:
    """The context that an answer to a question of about `length` tokens takes."""
    return length + length // 50 + 64 + TOKENS_BETWEEN * (CHANGES_PER_CONTEXT + 2)


def _throughput(answer: Answer, windows: Sequence[tuple[float, float]]) -> float:
    """Tokens per second from a stage's being ready to the end of the change, of what they are between changes."""
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for before, at in pairwise(answer.came_s):
        copying = any(first < at and before < last for first, last in windows)
        gaps[copying].append(at - before)
    return _mean(gaps[False], 6) / _mean(gaps[True], 6) if all(gaps.values()) else 0.0


def _pauses_seen(answer: Answer) -> list[float]:
    """For every change of plan within an answer, how much longer than usual its first token took to come, in ms."""
    gaps = [0.0, *(float(gap) * 1e3 for gap in np.diff(answer.came_s))]
    pauses = []
    for index in range(1, len(gaps)):
        if answer.epochs[index] != answer.epochs[index - 1]:
            after = gaps[index + 1 : index + 1 + USUAL_TOKENS]
            if after:
                pauses.append(max(0.0, gaps[index] - median(after)))
    return pauses


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """The 50th and 99th; none of nothing."""
    if not values:
        return {}
    return {f"{name}_p{share}": round(float(np.percentile(values, share)), 2) for share in (50, 99)}


def _mean(values: Sequence[float], digits: int = 1) -> float:
    return round(float(np.mean(values)), digits) if values else 0.0


def _stages(plan: types_pb2.SplitPlan) -> Stages:
    return [(stage.node, stage.layers.start, stage.layers.stop) for stage in plan.stages]


def _other_plan(choices: random.Random, blocks: int, current: Stages) -> Stages:
    """Nodes in random order, as many as chance has it, random cuts; never the plan that is in force."""
    while True:
        chosen = choices.sample(_NODES, choices.randint(1, len(_NODES)))
        cuts = sorted(choices.sample(range(1, blocks), len(chosen) - 1))
        stages = [(n, r.start, r.stop) for n, r in zip(chosen, ranges_from_cuts(blocks, cuts), strict=True)]
        if stages != current:
            return stages
