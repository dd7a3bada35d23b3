"""Token buckets (one per client or address), pure: time comes in as an argument. Memory is bounded, whoever asks.

`authentication` charges every request, `token_endpoint` every failed attempt to prove who one is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, and `per_s` more each second."""

    per_s: float
    burst: int


class RateLimiter:
    """One bucket per name, full at first. Beyond `size` names the one that was seen longest ago is forgotten.

    A forgotten bucket is a full one, so whoever floods the limiter with names harms nobody else.
    """

    def __init__(self, rate: Rate, size: int = 10_000) -> None:
        self._rate = rate
        self._size = size
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, name: str, now_s: float) -> float:
        """Seconds until `name` may take one; 0 where it may now. Takes nothing."""
        missing = 1 - self._level(name, now_s)
        return missing / self._rate.per_s if missing > 0 else 0.0

    def take(self, name: str, now_s: float) -> float:
        """Takes one and returns 0, or returns the seconds to wait and takes nothing."""
        level = self._level(name, now_s)
        if level < 1:
            return (1 - level) / self._rate.per_s
        self._buckets[name] = (level - 1, now_s)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return 0.0

    def _level(self, name: str, now_s: float) -> float:
        bucket = self._buckets.get(name)
        if bucket is None:
            return self._rate.burst
        level, at_s = bucket
        return min(self._rate.burst, level + (now_s - at_s) * self._rate.per_s)
