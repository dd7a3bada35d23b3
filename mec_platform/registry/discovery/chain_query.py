"""What a consumer asks where one service is not enough, and what it is answered, as frozen values.

Counterparts: `chain` answers a query, `wire` translates both from and to protobuf messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality
from mec_platform.registry.discovery.query import DiscoveryQuery, check_kpi_age, check_texts, check_trust

MOST_BLOCKS = 1024
MOST_CALLS = 64

HopTime: TypeAlias = Callable[[str | None, str | None], float | None]
"""Milliseconds from one service to another by id, None for the consumer at either end; answers None where there is no link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainQuery:
    """Which blocks of a model are to be covered, by services of what trust, and how fast and long the chain may be.

    Where `trusted_first` or `trusted_last` is given, only so many of the first and of the last blocks need
    `trust_at_least`, otherwise all do. `max_latency_ms` is for one token. `max_calls`: a service that is called for two parts
    counts twice.

    Raises:
        ValueError: a value is out of its bounds; the message says which and what would do.
    """

    consumer: Locality
    model: str
    blocks: LayerRange
    trust_at_least: int = 0
    trusted_first: int | None = None
    trusted_last: int | None = None
    quantisations: frozenset[str] = frozenset()
    max_kpi_age_s: float | None = None
    max_latency_ms: float | None = None
    max_calls: int = 8

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("a chain needs the model whose blocks it is to cover")
        check_texts("model", (self.model,))
        check_texts("quantisations", self.quantisations)
        check_trust(self.trust_at_least)
        check_kpi_age(self.max_kpi_age_s)
        if len(self.blocks) > MOST_BLOCKS:
            raise ValueError(f"a chain covers at most {MOST_BLOCKS} blocks, found {len(self.blocks)}")
        if not 1 <= self.max_calls <= MOST_CALLS:
            raise ValueError(f"max_calls must be from 1 to {MOST_CALLS}, found {self.max_calls}")
        for name in ("trusted_first", "trusted_last"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be 0 or more, found {getattr(self, name)}")
        if self.max_latency_ms is not None and not 0 < self.max_latency_ms < inf:
            raise ValueError(f"max_latency_ms must be a finite number above 0, or absent; found {self.max_latency_ms}")

    @property
    def open_blocks(self) -> LayerRange | None:
        """The blocks that services below `trust_at_least` may serve."""
        if self.trusted_first is None and self.trusted_last is None:
            return None
        start = self.blocks.start + (self.trusted_first or 0)
        stop = self.blocks.stop - (self.trusted_last or 0)
        return LayerRange(start, stop) if start < stop else None

    @property
    def for_each(self) -> DiscoveryQuery:
        """What every service of the chain has to meet, trust aside."""
        return DiscoveryQuery(
            consumer=self.consumer, model=self.model, intersects=self.blocks, quantisations=self.quantisations
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One service and the blocks that it is called for; `hop_ms` is the way to it, `compute_ms` its blocks for a token."""

    service_id: str
    layers: LayerRange
    hop_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls that cover the blocks in order; `return_ms` is the way back from the last of them.

    `left_out` counts the services that could not take part, by reason.
    """

    calls: tuple[Call, ...]
    return_ms: float
    left_out: Mapping[str, int]

    @property
    def latency_ms(self) -> float:
        """What a token takes through the chain and back."""
        return sum(call.hop_ms + call.compute_ms for call in self.calls) + self.return_ms

    def explanation(self) -> str:
        """The chain in words, with what each part of it takes."""
        calls = " -> ".join(
            f"{call.service_id} {call.layers} ({call.hop_ms:.2f} ms hop, {call.compute_ms:.2f} ms compute)"
            for call in self.calls
        )
        back = f" -> back ({self.return_ms:.2f} ms)" if self.return_ms else ""
        return f"{calls}{back}: {self.latency_ms:.2f} ms a token"


@dataclass(frozen=True, slots=True)
class NoChain:
    """Why there is none. `uncovered`: blocks that nobody may serve; `cheapest`: the best chain, where a bound alone refuses it."""

    reason: str
    uncovered: tuple[LayerRange, ...] = ()
    cheapest: Chain | None = None
