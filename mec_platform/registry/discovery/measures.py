"""What candidates are compared by, and how a raw value becomes a worth from 0 to 1.

Scales are fixed: a candidate's worth depends on nothing but its own value. So a score means the same in every answer and
on every host, answers of several hosts can be merged, and a candidate that becomes better, or is measured at last, never
falls behind one that stayed as it was. (Min-max over the candidates at hand would reorder two of them when a third
comes or goes.) What scales that saturate need is the value that is worth one half; a preference may set its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from mec_platform.domain.capabilities import KPI_NAMES
from mec_platform.domain.locality import WIDENING

DISTANCE = "distance"
TRUST_LEVEL = "trust_level"


class Direction(StrEnum):
    """Which values of a measure are the better ones."""

    MINIMISE = "minimise"
    MAXIMISE = "maximise"


@dataclass(frozen=True, slots=True)
class Linear:
    """From `lowest` to `highest`; values beyond count as the nearer end."""

    lowest: float
    highest: float

    def worth(self, value: float, direction: Direction) -> float:
        """From 0 to 1; a better value is never worth less, in floating point too."""
        value = min(max(value, self.lowest), self.highest)
        gained = value - self.lowest if direction is Direction.MAXIMISE else self.highest - value
        return gained / (self.highest - self.lowest)


@dataclass(frozen=True, slots=True)
class Saturating:
    """For values from 0 without an upper end: worth one half at `half`, and ever less is gained beyond."""

    half: float

    def worth(self, value: float, direction: Direction) -> float:
        """From 0 to 1; a better value is never worth less, in floating point too."""
        # Written with one rounded sum and quotient, each of them monotone; value / (half + value) is not.
        low_is_good = self.half / (self.half + value)
        return low_is_good if direction is Direction.MINIMISE else 1 - low_is_good


Scale: TypeAlias = Linear | Saturating

SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "load": Linear(0, 1),
        "capacity": Saturating(8),  # requests at once of a busy CPU node
        "free_memory_bytes": Saturating(4 * 2**30),  # a quantised model of a few billion parameters
        "tokens_per_s": Saturating(30),  # a few times as fast as people read
        "rtt_ms": Saturating(20),  # within one access network, against through the core
        "radio_quality_db": Linear(-10, 30),  # SINR: no service below, no faster modulation above
        DISTANCE: Linear(0, len(WIDENING)),
        TRUST_LEVEL: Saturating(1),  # the step from untrusted to trusted counts most
    }
)
"""Every measure that can be preferred by: all KPIs, `distance` (`Locality.steps_to` the consumer) and `trust_level`."""

assert set(KPI_NAMES) <= set(SCALES), "every KPI needs a scale"
