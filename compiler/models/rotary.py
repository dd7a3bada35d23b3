"""Rotary embedding: every variant ends in one rate per pair of a head, and in a table that all nodes share.

Parameters come from files: each function raises ValueError or ArithmeticError for those that cannot be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rotary:
    """`rates`: radians per position of each of the head_dim / 2 pairs; `magnitude` multiplies cosines and sines."""

    rates: tuple[float, ...]
    magnitude: float = 1.0


def plain_rotary(base: float, head_dim: int) -> Rotary:
    """Rates fall from 1 to almost 1 / `base`."""
    if base <= 1:
        raise ValueError(f"a base of {base}")
    return Rotary(tuple(base ** (-2 * pair / head_dim) for pair in range(head_dim // 2)))


def divide_rates(rotary: Rotary, factors: list[float]) -> Rotary:
    """Each pair slowed down by a factor of its own."""
    if not all(factor > 0 for factor in factors):
        raise ValueError("a factor that is not positive")
    rates = tuple(rate / factor for rate, factor in zip(rotary.rates, factors, strict=True))
    return Rotary(rates, rotary.magnitude)


def linear_rotary(rotary: Rotary, factor: float) -> Rotary:
    """Position interpolation: all pairs slowed down alike."""
    return divide_rates(rotary, [factor] * len(rotary.rates))


def llama3_rotary(rotary: Rotary, factor: float, low: float, high: float, original_context: int) -> Rotary:
    """Llama 3.1: pairs that turn fewer than `low` times in the original context are slowed down, more than `high` kept.

    Those between are blended by their number of turns.
    """
    rates = []
    for rate in rotary.rates:
        turns = original_context * rate / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        rates.append(rate * (kept + (1 - kept) / factor))
    return Rotary(tuple(rates), rotary.magnitude)


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """What YaRN multiplies queries and keys with: grows with the logarithm of `factor` (arXiv 2309.00071, 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


@dataclass(frozen=True, slots=True)
class YarnRange:
    """Pairs that turn `fast` times in the original context are kept, `slow` times slowed down, a ramp between.

    `truncate` widens the ramp to whole pairs.
    """

    original_context: int
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True


def yarn_rotary(base: float, head_dim: int, factor: float, magnitude: float, ramp: YarnRange) -> Rotary:
    """YaRN (arXiv 2309.00071): fast pairs keep their rate, slow ones are slowed down by `factor`."""

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(ramp.original_context / (times * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair_that_turns(ramp.fast), pair_that_turns(ramp.slow)
    if ramp.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    span = last - first or 0.001
    rates = []
    for pair, rate in enumerate(plain_rotary(base, head_dim).rates):
        slowed = min(1.0, max(0.0, (pair - first) / span))
        rates.append(rate * (1 - slowed + slowed / factor))
    return Rotary(tuple(rates), magnitude)


def rotary_table(rotary: Rotary, head_dim: int, start: int, stop: int) -> np.ndarray:
    """Cosines, then sines, of positions [start, stop): float32 [stop - start, head_dim].

    `head_dim` is the padded width; the pairs that padding adds do not turn.
    """
    pairs = head_dim // 2
    rates = np.zeros(pairs)
    rates[: len(rotary.rates)] = rotary.rates
    angles = np.arange(start, stop)[:, None] * rates
    return (np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * rotary.magnitude).astype(np.float32)
