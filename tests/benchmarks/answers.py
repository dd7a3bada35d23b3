"""Answers of a cluster as token ids and times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mec_apps.cli.local_cluster import LocalCluster
from mec_platform.rpc.v1 import inference_pb2
from tests.benchmarks.machine import BenchmarkError

QUESTION = "Explain step by step how to plan, plant and care for a vegetable garden through all four seasons."

_LOOKED_AT_TOKENS = 25
"""Of an answer whose session is looked at while it is made."""


@dataclass(slots=True)
class Answer:
    """Token ids; per token the time from frame to token and the part of it that stages computed, in milliseconds, when it
    came here, in seconds of the monotonic clock, and the epoch of the plan that made it."""

    tokens: list[int] = field(default_factory=list)
    token_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    came_s: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """As the client sees it, from the first token on."""
        return (len(self.tokens) - 1) / self.seconds


async def ask(
    cluster: LocalCluster,
    max_tokens: int,
    on_token: Callable[[int], None] = lambda count: None,
    question: str = QUESTION,
) -> Answer:
    """The greedy answer; `on_token` learns after each token how many there are."""
    request = inference_pb2.GenerateRequest(
        messages=[inference_pb2.ChatMessage(role="user", content=question)], max_tokens=max_tokens
    )
    answer, first = Answer(), 0.0
    async for event in cluster.inference.Generate(request):
        answer.tokens.append(event.token)
        answer.token_ms.append(event.token_ms)
        answer.compute_ms.append(event.compute_ms)
        answer.came_s.append(time.monotonic())
        answer.epochs.append(event.epoch)
        answer.seconds = time.perf_counter() - (first := first or time.perf_counter())
        on_token(len(answer.tokens))
    return answer


async def question_of(cluster: LocalCluster, positions: int) -> str:
    """The benchmark's question, as often as its prompt has at most so many tokens, and at least once. Raises BenchmarkError."""
    few, more = 2, 12
    short, long = [await _prompt_tokens(cluster, " ".join([QUESTION] * times)) for times in (few, more)]
    each = (long - short) / (more - few)
    return " ".join([QUESTION] * max(1, int(few + (positions - short) // each)))


async def _prompt_tokens(cluster: LocalCluster, question: str) -> int:
    found: list[int] = []
    first = asyncio.Event()

    async def look() -> None:
        await first.wait()
        live = (await cluster.inference.ListSessions(inference_pb2.ListSessionsRequest())).sessions
        found.extend(session.positions - session.generated for session in live)

    async with asyncio.TaskGroup() as both:
        both.create_task(ask(cluster, _LOOKED_AT_TOKENS, lambda _: first.set(), question))
        both.create_task(look())
    if not found:
        raise BenchmarkError("the gateway knows of no session while it answers")
    return found[0]
