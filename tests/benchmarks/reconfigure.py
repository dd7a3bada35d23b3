"""`mec bench reconfigure`: random live re-splits in the middle of answers; every answer must be the undisturbed one.

Nodes are killed, and plans aborted, among the re-splits. Pauses are told as the platform reports them and as a client sees
them: the gap in front of the first token of a new plan, less the usual gap on that plan; beside it the same of tokens at
which nothing changed, which is what the machine does by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_platform.domain.errors import MendableError
from mec_platform.rpc.v1 import control_plane_pb2
from tests.benchmarks.answers import ask
from tests.benchmarks.context_pauses import MODEL_CONTEXT, ContextPauses
from tests.benchmarks.context_pauses import TOKENS as CONTEXT_TOKENS
from tests.benchmarks.disturbances import NODES, TOKENS, Disturbed, Disturber
from tests.benchmarks.machine import at_least, at_most, machine
from tests.benchmarks.pauses import (
    copying_times,
    longest_stalls,
    mean,
    ordinary_excesses,
    pauses_seen,
    percentiles,
)

TELLABLE_MS = 1.0
"""Shorter pauses count as this one where lengths are compared: single tokens differ by as much without a change."""

SHORTEST_CONTEXT = 2048
TOLD_EVERY_S = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Extent:
    """One answer per change. `kills` and `aborts` are among `count`; `contexts` are lengths at which pauses are compared
    besides."""

    count: int
    seed: int = 0
    kills: int = 0
    aborts: int = 0
    contexts: Sequence[int] = ()
    kv_compression: str = "none"


@dataclass(slots=True)
class _Counts:
    """What became of all answers and changes. `failures` are changes that did not come about as they should, by reason."""

    answers: int = 0
    identical: int = 0
    lost: int = 0
    repeated: int = 0
    aborted: int = 0
    not_aborted: int = 0
    done: list[control_plane_pb2.Reconfiguration] = field(default_factory=list)
    seen_ms: list[float] = field(default_factory=list)
    ordinary_ms: list[float] = field(default_factory=list)
    stalls_ms: list[tuple[float, float]] = field(default_factory=list)
    detected_ms: list[float] = field(default_factory=list)
    recovered_ms: list[float] = field(default_factory=list)
    replay_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0
    usual_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    def judge(self, tokens: Sequence[int], reference: Sequence[int]) -> None:
        """Counts an answer; a token more than there should be was repeated."""
        self.answers += 1
        self.identical += tokens == reference
        differing = sum(a != b for a, b in zip(tokens, reference, strict=False))
        self.lost += max(0, len(reference) - len(tokens)) + differing
        self.repeated += max(0, len(tokens) - len(reference))

    def add(self, kind: str, disturbed: Disturbed) -> None:
        """Counts what was done to an answer and what its reader saw of it."""
        answer, changes = disturbed.answer, disturbed.changes
        self.done += disturbed.done
        if kind == "kill":
            self._add_kill(disturbed)
        elif kind == "abort":
            self.aborted += disturbed.aborted
            self.not_aborted += not disturbed.aborted
        else:
            self.seen_ms += pauses_seen(answer)
            self.ordinary_ms += ordinary_excesses(answer, changes)
            self.stalls_ms += [found for each in changes if (found := longest_stalls(answer, each)) is not None]
            took_s, usual_s = copying_times(answer, changes)
            self.took_s, self.usual_s = self.took_s + took_s, self.usual_s + usual_s

    def _add_kill(self, disturbed: Disturbed) -> None:
        answer = disturbed.answer
        self.detected_ms.append((disturbed.decided_s - disturbed.killed_s) * 1e3)
        went_on = [i for i, epoch in enumerate(answer.epochs) if epoch > answer.epochs[0]]
        if not went_on:
            self.failures["a kill that its answer did not outlast"] += 1
            return
        first = went_on[0]
        self.recovered_ms.append((answer.came_s[first] - disturbed.killed_s) * 1e3)
        # The first frame on the new plan carries every token of the session: its time is that of the replay.
        self.replay_ms.append(answer.token_ms[first])


def run(extent: Extent, tell: Tell = lambda text: None) -> dict[str, Any]:
    """`tell` is given lines of progress."""
    return asyncio.run(_run(extent, tell))


async def _run(extent: Extent, tell: Tell) -> dict[str, Any]:
    counts = _Counts()
    async with _cluster(extent) as cluster:
        blocks = (await cluster.wait_for_plan()).stages[-1].layers.stop
        await _disturb_all(cluster, blocks, extent, counts, tell)
        contexts, lengths = ContextPauses(cluster, blocks), {}
        for length in extent.contexts:
            tell(f"pauses at a context of {length} tokens")
            lengths[length] = await contexts.at(length)
    return _result(extent, counts, lengths)


def _cluster(extent: Extent) -> LocalCluster:
    nodes = [NodeOptions(name, kv_compression=extent.kv_compression) for name in NODES]
    longest = max(extent.contexts, default=0)
    # A template and the last words of a question come on top.
    context = min(MODEL_CONTEXT, max(SHORTEST_CONTEXT, longest + 64 + CONTEXT_TOKENS))
    return LocalCluster(ensure_compiled("smollm2", "int4", None), nodes, manual=True, context=context)


async def _disturb_all(cluster: LocalCluster, blocks: int, extent: Extent, counts: _Counts, tell: Tell) -> None:
    """One answer after the other, each with its change. One that fails is counted with its reason, and the rest go on."""
    choices = random.Random(extent.seed)
    re_splits = extent.count - extent.kills - extent.aborts
    kinds = ["kill"] * extent.kills + ["abort"] * extent.aborts + ["re-split"] * re_splits
    choices.shuffle(kinds)
    disturber = Disturber(cluster, blocks, choices)
    reference = (await ask(cluster, TOKENS)).tokens
    began = told = time.monotonic()
    for number, kind in enumerate(kinds, start=1):
        try:
            disturbed = await disturber.disturb(kind)
        except* (MendableError, grpc.aio.AioRpcError, TimeoutError) as group:
            counts.failures[f"{kind}: {_reason(group)}"] += 1
            counts.judge([], reference)
            tell(f"change {number}: {kind} failed: {_reason(group)}")
            await disturber.mend()
        else:
            counts.judge(disturbed.answer.tokens, reference)
            counts.add(kind, disturbed)
        if time.monotonic() - told >= TOLD_EVERY_S or number == len(kinds):
            told = time.monotonic()
            so_far = f"{counts.identical} of {counts.answers} answers identical, {counts.lost} tokens lost"
            tell(f"{number} of {len(kinds)} changes after {told - began:.0f} s: {so_far}")


def _reason(group: BaseExceptionGroup[Any]) -> str:
    """Of the first error."""
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _reason(error)
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error) or type(error).__name__


def _result(extent: Extent, counts: _Counts, lengths: dict[int, dict[str, float]]) -> dict[str, Any]:
    copied = [each for each in counts.done if each.replayed_tokens == 0]
    metrics = {
        "reconfigurations": float(extent.count),
        "kills": float(extent.kills),
        "aborts": float(extent.aborts),
        "identical": float(counts.identical),
        "tokens_lost": float(counts.lost),
        "tokens_repeated": float(counts.repeated),
        "failed": float(counts.failures.total()),
        "aborted": float(counts.aborted),
        "aborts_that_committed": float(counts.not_aborted),
        "sessions_moved": float(sum(each.sessions for each in counts.done)),
        **percentiles("pause_ms", [each.pause_ms_max for each in copied]),
        **percentiles("pause_seen_ms", counts.seen_ms),
        **percentiles("token_without_change_seen_ms", counts.ordinary_ms),
        **percentiles("longest_gap_in_change_ms", [with_change for with_change, _ in counts.stalls_ms]),
        **percentiles("longest_gap_before_change_ms", [without for _, without in counts.stalls_ms]),
        **percentiles("held_ms", [each.held_ms_max for each in copied]),
        "tail_positions_mean": mean([each.tail_positions_max for each in copied]),
        **percentiles("prepare_ms", [each.prepare_ms for each in counts.done]),
        **percentiles("switch_ms", [each.switch_ms for each in counts.done]),
        "moved_bytes_mean": mean([each.moved_bytes for each in copied]),
        "by_replay": float(len(counts.done) - len(copied)),
        "by_stop_and_copy": float(sum(each.transfer.startswith("stop-and-copy") for each in counts.done)),
        "replayed_tokens": float(sum(each.replayed_tokens for each in counts.done)),
        **_throughput(counts),
        **_kill_metrics(counts),
        "load_1min": round(os.getloadavg()[0], 2),
    }
    for length, figures in lengths.items():
        metrics |= {f"context_{length}_{name}": value for name, value in figures.items()}
    return {
        "bench": "reconfigure",
        "machine": machine(),
        "metrics": metrics,
        "criteria": [*_criteria(extent, counts, metrics), *_context_criteria(lengths)],
        "failures": dict(counts.failures),
    }


def _throughput(counts: _Counts) -> dict[str, float]:
    return {"throughput_while_copying": round(counts.usual_s / counts.took_s, 3)} if counts.took_s else {}


def _kill_metrics(counts: _Counts) -> dict[str, float]:
    beyond = [all_ms - replay_ms for all_ms, replay_ms in zip(counts.recovered_ms, counts.replay_ms, strict=True)]
    metrics: dict[str, float] = {}
    for name, values in {
        "killed_detected_ms": counts.detected_ms,
        "killed_next_token_ms": counts.recovered_ms,
        "killed_replay_ms": counts.replay_ms,
        "killed_next_token_less_replay_ms": beyond,
    }.items():
        metrics |= percentiles(name, values) | ({f"{name}_max": round(max(values), 2)} if values else {})
    return metrics


def _criteria(extent: Extent, counts: _Counts, metrics: dict[str, float]) -> list[dict[str, object]]:
    criteria = [
        at_most("tokens_lost", counts.lost, 0),
        at_most("tokens_repeated", counts.repeated, 0),
        at_most("failed", counts.failures.total(), 0),
    ]
    if extent.kv_compression == "none":
        criteria.append(at_least("identical", counts.identical, extent.count))
    if counts.done:
        criteria.append(at_least("sessions_moved", metrics["sessions_moved"], len(counts.done)))
    if counts.seen_ms:
        criteria += [
            at_most("pause_seen_ms_p50", metrics["pause_seen_ms_p50"], 5),
            at_most("pause_seen_ms_p99", metrics["pause_seen_ms_p99"], 20),
        ]
    if counts.took_s:
        criteria.append(at_least("throughput_while_copying", metrics["throughput_while_copying"], 0.85))
    if counts.recovered_ms:
        criteria += [
            at_most("killed_detected_ms_max", metrics["killed_detected_ms_max"], 1000),
            at_most("killed_next_token_less_replay_ms_max", metrics["killed_next_token_less_replay_ms_max"], 1000),
        ]
    return criteria


def _context_criteria(lengths: dict[int, dict[str, float]]) -> list[dict[str, object]]:
    criteria = [at_least(f"context_{n}_identical", each["identical"], 1) for n, each in lengths.items()]
    if not lengths:
        return criteria
    shortest, longest = (lengths[length] for length in (min(lengths), max(lengths)))
    ratio = max(longest["pause_seen_ms_p50"], TELLABLE_MS) / max(shortest["pause_seen_ms_p50"], TELLABLE_MS)
    name = f"context_{max(lengths)}_throughput_while_copying"
    return [
        at_most("pause_of_longest_context_to_shortest", round(ratio, 3), 1.5),
        at_least(name, longest["throughput_while_copying"], 0.85),
        *criteria,
    ]
