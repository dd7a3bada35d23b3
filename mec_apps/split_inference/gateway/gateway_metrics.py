"""What the gateway counts, in Prometheus form.

`http_api` notes requests and tokens here and serves the registry at /metrics; whoever composes the gateway may add
gauges of its own to the same registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mec_apps.split_inference.gateway.answer import AnswerPiece

# From a small model on one node (about a millisecond a token) to a large one whose sessions wait out a re-split.
_TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
# The first token also waits for the whole prompt.
_FIRST_TOKEN_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """The gateway's counters, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry, clock_s: Callable[[], float]) -> None:
        """Adds the counters to `registry`; `clock_s` is a monotonic clock in seconds."""
        self.registry = registry
        self.clock_s = clock_s
        self.requests = Counter(
            "mec_gateway_requests", "HTTP requests answered", ("route", "status"), registry=registry
        )
        self.prompt_tokens = Counter("mec_gateway_prompt_tokens", "Tokens read from prompts", registry=registry)
        self.generated_tokens = Counter("mec_gateway_generated_tokens", "Tokens generated", registry=registry)
        self.generations = Counter(
            "mec_gateway_generations",
            "Generations ended, by outcome: stop, length, failed, disconnected",
            ("outcome",),
            registry=registry,
        )
        self.sessions = Gauge("mec_gateway_sessions_in_flight", "Generations under way", registry=registry)
        self.first_token_s = Histogram(
            "mec_gateway_time_to_first_token_seconds",
            "From the arrival of a request to its first token",
            buckets=_FIRST_TOKEN_SECONDS,
            registry=registry,
        )
        self.token_s = Histogram(
            "mec_gateway_time_per_token_seconds",
            "Between a token and the one before it",
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )

    def watch_generation(self, arrived_s: float, prompt_tokens: int) -> GenerationWatch:
        """Counts one generation from here to the end of the `with` block."""
        return GenerationWatch(self, arrived_s, prompt_tokens)


class GenerationWatch:
    """Times the tokens of one generation and notes how it ended, whichever way the block is left."""

    def __init__(self, metrics: GatewayMetrics, arrived_s: float, prompt_tokens: int) -> None:
        """Takes the time the request arrived by the metrics' own clock."""
        self._metrics = metrics
        self._previous_s = arrived_s
        self._prompt_tokens = prompt_tokens
        self._tokens = 0
        # Until something else is known: a client that goes away cancels the task, and no code here runs but the exit.
        self._outcome = "disconnected"

    def __enter__(self) -> GenerationWatch:
        """Counts the generation as in flight."""
        self._metrics.sessions.inc()
        self._metrics.prompt_tokens.inc(self._prompt_tokens)
        return self

    def note(self, piece: AnswerPiece) -> None:
        """Notes the token that a piece stands for; a last piece may come without a token of its own."""
        self._outcome = piece.finish_reason or self._outcome
        if piece.tokens == self._tokens:
            return
        now_s = self._metrics.clock_s()
        histogram = self._metrics.token_s if self._tokens else self._metrics.first_token_s
        histogram.observe(now_s - self._previous_s)
        self._metrics.generated_tokens.inc(piece.tokens - self._tokens)
        self._previous_s, self._tokens = now_s, piece.tokens

    def note_failure(self) -> None:
        """Notes an error that the block deals with itself."""
        self._outcome = "failed"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Notes the outcome; a client that went away shows as a cancelled task or a broken connection."""
        if isinstance(error, ConnectionError | asyncio.CancelledError):
            self._outcome = "disconnected"
        elif error is not None:
            self._outcome = "failed"
        self._metrics.sessions.dec()
        self._metrics.generations.labels(self._outcome).inc()
