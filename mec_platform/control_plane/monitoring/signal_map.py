"""What a UE's round trip has been at which signal, learned as measurements come: better signal, no longer round trip. Pure.

One value a bin of two decibels. A bin follows the median of its round trips in bounded steps, so that a stall of thirty
seconds moves it as much as one of a hundred milliseconds. What is told is monotone: bins that contradict each other are
taken together, weighted by what they have seen (pool adjacent violators, Ayer et al. 1955).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BIN_DB = 2.0
_SLOWEST_STEP = 0.02
"""Of the bin's value: a bin that has seen much still follows the world within some dozens of measurements."""

_FULL_WEIGHT = 200


@dataclass(frozen=True, slots=True)
class SignalMap:
    """By bin: how many round trips it has seen, and their running median in seconds."""

    bins: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    def learn(self, signal_db: float, round_trip_s: float) -> SignalMap:
        """The map after one more measurement."""
        number = round(signal_db / BIN_DB)
        seen, median_s = self.bins.get(number, (0, round_trip_s))
        step_s = median_s * max(_SLOWEST_STEP, 1.0 / (seen + 2))
        distance_s = round_trip_s - median_s
        median_s += max(-step_s, min(step_s, distance_s))
        return SignalMap({**self.bins, number: (min(seen + 1, _FULL_WEIGHT), median_s)})

    def round_trip_s(self, signal_db: float) -> float | None:
        """What this signal means, by interpolation; beyond what was seen, as at the edge. None where nothing was seen."""
        points = self._monotone()
        if not points:
            return None
        at = signal_db / BIN_DB
        before = points[0]
        if at <= before[0]:
            return before[1]
        for point in points[1:]:
            if at <= point[0]:
                part = (at - before[0]) / (point[0] - before[0])
                return before[1] + part * (point[1] - before[1])
            before = point
        return before[1]

    def _monotone(self) -> list[tuple[float, float]]:
        """Bins in order of signal with values that never rise."""
        pools: list[tuple[float, float, list[int]]] = []
        for number in sorted(self.bins):
            seen, value = self.bins[number]
            weight, members = float(seen), [number]
            while pools and pools[-1][1] < value:
                other_weight, other_value, others = pools.pop()
                value = (other_weight * other_value + weight * value) / (other_weight + weight)
                weight, members = other_weight + weight, others + members
            pools.append((weight, value, members))
        return [(float(number), value) for _, value, members in pools for number in members]
