"""Pauses of live re-splits at contexts of several lengths: copies ahead make them the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from statistics import median

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.rpc.v1 import control_plane_pb2, inference_pb2
from tests.benchmarks.answers import Answer, ask, question_of
from tests.benchmarks.disturbances import Stages, timed_apply
from tests.benchmarks.machine import BenchmarkError
from tests.benchmarks.pauses import Change, copying_times, mean, pauses_seen, percentiles

MODEL_CONTEXT = 8192
TOKENS = 240
"""Of each answer. Where prompt and answer would be more than the model's context, the prompt is that much shorter."""

CHANGES = 8
ANSWERS = 6
"""So many changes are wanted, in so many answers at most: the longer a context, the fewer copies of it end within an answer."""

TOKENS_BETWEEN = 25
"""Tokens in front of a change and between two: the usual gap is taken from them."""

LAST_START = TOKENS - 60
"""A change that began later might not end within its answer."""

MOVED_LAYERS = 6


@dataclass(slots=True)
class _Seen:
    done: list[control_plane_pb2.Reconfiguration] = field(default_factory=list)
    pauses_ms: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    copies_ms: list[float] = field(default_factory=list)
    identical: bool = True
    took_s: float = 0.0
    usual_s: float = 0.0


class ContextPauses:
    """Measures at one cluster whose nodes hold MODEL_CONTEXT positions, or what the longest length needs."""

    def __init__(self, cluster: LocalCluster, blocks: int) -> None:
        self._cluster = cluster
        half = blocks // 2
        # Any two of these differ by as many layers, so that every change moves as much.
        self._plans: list[Stages] = [
            [("edge-1", 0, cut), ("edge-2", cut, blocks)] for cut in (half, half + min(MOVED_LAYERS, half - 1))
        ]
        self._turn = 0

    async def at(self, length: int) -> dict[str, float]:
        """Re-splits in the middle of answers to a question of about `length` tokens. Raises BenchmarkError, grpc's errors."""
        await self._change()
        question = await question_of(self._cluster, min(length, MODEL_CONTEXT - TOKENS))
        reference = await ask(self._cluster, TOKENS, question=question)
        seen = _Seen()
        for _ in range(ANSWERS):
            if len(seen.pauses_ms) >= CHANGES:
                break
            answer, changes = await self._answer(question, seen)
            seen.identical &= answer.tokens == reference.tokens
            seen.pauses_ms += pauses_seen(answer)
            seen.copies_ms += [(change.ended_s - change.prepared_s) * 1e3 for change in changes]
            took_s, usual_s = copying_times(answer, changes)
            seen.took_s, seen.usual_s = seen.took_s + took_s, seen.usual_s + usual_s
        if not seen.pauses_ms:
            raise BenchmarkError(f"no change ended within an answer of {TOKENS} tokens at a context of {length}")
        return {
            "identical": float(seen.identical),
            "changes": float(len(seen.pauses_ms)),
            "positions_mean": mean(seen.positions),
            **percentiles("pause_ms", [each.pause_ms_max for each in seen.done]),
            **percentiles("pause_seen_ms", seen.pauses_ms),
            **percentiles("held_ms", [each.held_ms_max for each in seen.done]),
            "tail_positions_mean": mean([each.tail_positions_max for each in seen.done]),
            "moved_bytes_mean": mean([each.moved_bytes for each in seen.done]),
            "by_replay": float(sum(each.replayed_tokens > 0 for each in seen.done)),
            "copy_ms_p50": round(median(seen.copies_ms), 1),
            "throughput_while_copying": round(seen.usual_s / seen.took_s, 3) if seen.took_s else 0.0,
        }

    async def _answer(self, question: str, seen: _Seen) -> tuple[Answer, list[Change]]:
        """One answer; a change begins whenever TOKENS_BETWEEN have come since the last one was over."""
        changes: list[Change] = []
        came, next_at, over = 0, TOKENS_BETWEEN, False
        due = asyncio.Event()

        def watch(count: int) -> None:
            nonlocal came
            came = count
            if next_at <= count <= LAST_START:
                due.set()

        async def change() -> None:
            nonlocal next_at
            while await due.wait() and not over:
                live = (await self._cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions
                seen.positions += [session.positions for session in live]
                done, times = await self._change()
                seen.done.append(done)
                changes.append(times)
                if not over:
                    next_at = came + TOKENS_BETWEEN
                    due.clear()

        async with asyncio.TaskGroup() as both:
            both.create_task(change())
            answer = await ask(self._cluster, TOKENS, watch, question)
            over = True
            due.set()
        return answer, changes

    async def _change(self) -> tuple[control_plane_pb2.Reconfiguration, Change]:
        self._turn += 1
        return await timed_apply(self._cluster, self._plans[self._turn % 2])
