"""Tokens per second by case, collected over rounds.

On a shared machine whole minutes are slow. A round therefore measures everything, ours, peers and limits, one after the
other; metrics are medians over all rounds, and ratios divide the best by the best.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable


class Rates:
    """Samples by the name of their case."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = defaultdict(list)

    def time(self, name: str, tokens: int, calls: int, step: Callable[[], object]) -> None:
        """One sample: `calls` calls of `step` that compute `tokens` tokens each, after one that warms up."""
        step()
        start = time.perf_counter()
        for _ in range(calls):
            step()
        self.add(name, [tokens * calls / (time.perf_counter() - start)])

    def add(self, name: str, samples: Iterable[float]) -> None:
        """Samples that were measured elsewhere."""
        self._samples[name] += samples

    def names(self) -> tuple[str, ...]:
        """Cases that were measured."""
        return tuple(self._samples)

    def best(self, name: str) -> float:
        """The largest sample."""
        return max(self._samples[name])

    def metrics(self) -> dict[str, float]:
        """Median and best of every case."""
        found = {}
        for name, samples in self._samples.items():
            found[f"{name}_tokens_per_s"] = round(statistics.median(samples), 1)
            found[f"{name}_best_tokens_per_s"] = round(max(samples), 1)
        return found
