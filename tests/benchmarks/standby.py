"""`mec bench standby`: what a killed node costs an answer where another one stands by for it, and what standing by costs.

One edge of four nodes, two of them in the chain. With and without standbys in turns: an answer that nothing disturbs, for
its speed, and one in whose middle a node of the chain is killed, for the time until the next token and the part of it that
its first frame took: a replay of all tokens, or of those that a copy lacks.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mec_apps.cli.compile import ensure_compiled
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from tests.benchmarks.answers import ask, question_of
from tests.benchmarks.context_pauses import MODEL_CONTEXT
from tests.benchmarks.machine import BenchmarkError, at_least, at_most, machine
from tests.benchmarks.pauses import percentiles

NODES = ("edge-1", "edge-2", "edge-3", "edge-4")
VICTIM = "edge-2"
TOKENS = 80
KILLED_AFTER = 40
"""Tokens: long after the copy of the prompt has been made."""

PATIENCE_S = 30.0

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Seen:
    identical: bool = True
    tokens_per_s: list[float] = field(default_factory=list)
    next_token_ms: list[float] = field(default_factory=list)
    first_frame_ms: list[float] = field(default_factory=list)


def run(contexts: Sequence[int], kills: int, tell: Tell = lambda text: None) -> dict[str, Any]:
    """`kills` for every length of context, with standbys and without. `tell` is given lines of progress."""
    return asyncio.run(_run(contexts, kills, tell))


async def _run(contexts: Sequence[int], kills: int, tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        policy = Path(folder) / "policy.toml"
        _ask_for(policy, 0)
        compiled = ensure_compiled("smollm2", "int4", None)
        nodes = [NodeOptions(name) for name in NODES]
        context = min(MODEL_CONTEXT, max(contexts) + 2 * TOKENS + 64)
        async with LocalCluster(compiled, nodes, manual=True, context=context, policy=policy) as cluster:
            blocks = (await cluster.wait_for_plan()).stages[-1].layers.stop
            runs = _Runs(cluster, policy, [("edge-1", 0, blocks // 2), (VICTIM, blocks // 2, blocks)])
            seen = {}
            for length in contexts:
                tell(f"kills at a context of {length} tokens")
                seen[length] = await runs.at(min(length, MODEL_CONTEXT - TOKENS), kills)
    return _result(kills, seen)


def _ask_for(policy: Path, standbys: int) -> None:
    policy.write_text(f"[default.replicas]\nstandbys = {standbys}\n", encoding="utf-8")


class _Runs:
    """Answers of one cluster; each begins on the same plan."""

    def __init__(self, cluster: LocalCluster, policy: Path, stages: Sequence[tuple[str, int, int]]) -> None:
        self._cluster = cluster
        self._policy = policy
        self._stages = stages

    async def at(self, length: int, kills: int) -> tuple[_Seen, _Seen]:
        """Without standbys, and with one for each stage."""
        await self._begin(0)
        question = await question_of(self._cluster, length)
        reference = (await ask(self._cluster, TOKENS, question=question)).tokens
        seen = _Seen(), _Seen()
        for _ in range(kills):
            for standbys in (0, 1):
                await self._begin(standbys)
                undisturbed = await ask(self._cluster, TOKENS, question=question)
                seen[standbys].tokens_per_s.append(undisturbed.tokens_per_s)
                await self._kill(question, reference, seen[standbys])
        return seen

    async def _begin(self, standbys: int) -> None:
        """The plan of all runs, with so many standbys of each stage, all nodes there."""
        for name in NODES:
            if name not in self._cluster.running:
                await self._cluster.start_node(name)

        async def all_here() -> bool:
            return {member.name for member in (await self._cluster.snapshot()).members} >= set(NODES)

        async def as_wanted() -> bool:
            return len((await self._cluster.snapshot()).plan.standbys) == standbys * len(self._stages)

        await _until(all_here, "every node reports")
        _ask_for(self._policy, standbys)
        await self._cluster.apply(self._stages, "benchmark")
        await _until(as_wanted, f"every stage has {standbys} standbys")

    async def _kill(self, question: str, reference: Sequence[int], seen: _Seen) -> None:
        due, killed_s = asyncio.Event(), 0.0

        async def kill() -> None:
            nonlocal killed_s
            await due.wait()
            killed_s = time.monotonic()
            await self._cluster.kill(VICTIM)

        async with asyncio.TaskGroup() as both:
            both.create_task(kill())
            answer = await ask(self._cluster, TOKENS, lambda n: due.set() if n >= KILLED_AFTER else None, question)
        seen.identical &= answer.tokens == list(reference)
        first = next((i for i, epoch in enumerate(answer.epochs) if epoch > answer.epochs[0]), None)
        if first is None:
            raise BenchmarkError("an answer ended before its node was missed")
        seen.next_token_ms.append((answer.came_s[first] - killed_s) * 1e3)
        seen.first_frame_ms.append(answer.token_ms[first])


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not await condition():
        if time.monotonic() > give_up:
            raise BenchmarkError(f"not within {PATIENCE_S:g} s: {what}")
        await asyncio.sleep(0.05)


def _result(kills: int, seen: dict[int, tuple[_Seen, _Seen]]) -> dict[str, Any]:
    metrics: dict[str, float] = {"kills_of_each": float(kills)}
    criteria = []
    for length, (without, with_standbys) in seen.items():
        for name, each in (("without", without), ("standby", with_standbys)):
            metrics |= percentiles(f"context_{length}_{name}_next_token_ms", each.next_token_ms)
            metrics |= percentiles(f"context_{length}_{name}_first_frame_ms", each.first_frame_ms)
            metrics[f"context_{length}_{name}_tokens_per_s"] = round(median(each.tokens_per_s), 1)
            criteria.append(at_least(f"context_{length}_{name}_identical", float(each.identical), 1.0))
        kept = median(with_standbys.tokens_per_s) / median(without.tokens_per_s)
        metrics[f"context_{length}_speed_with_standbys_of_without"] = round(kept, 3)
        worst = round(max(with_standbys.next_token_ms), 1)
        criteria.append(at_most(f"context_{length}_standby_next_token_ms_max", worst, 1000))
    return {"bench": "standby", "machine": machine(), "metrics": metrics, "criteria": criteria}
