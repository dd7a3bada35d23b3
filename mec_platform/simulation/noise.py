"""Random numbers as a function of what they are for: every policy meets the same arrivals and the same measurement noise.

A stream that is drawn from in turn would give other numbers as soon as one policy asks once more; here a number depends
on the seed and on its key alone.
"""

from __future__ import annotations

import zlib
from math import cos, log, pi, sqrt

_MASK = (1 << 64) - 1


def uniform(seed: int, *key: int | str) -> float:
    """A number in (0, 1) that belongs to `seed` and `key`."""
    state = _mixed(seed & _MASK)
    for part in key:
        word = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = _mixed(state ^ (word & _MASK))
    return ((state >> 11) + 0.5) / (1 << 53)


def normal(seed: int, *key: int | str) -> float:
    """Standard normal (Box and Muller)."""
    return sqrt(-2 * log(uniform(seed, *key, 1))) * cos(2 * pi * uniform(seed, *key, 2))


def exponential(seed: int, *key: int | str) -> float:
    """Exponential with mean 1."""
    return -log(uniform(seed, *key))


def _mixed(word: int) -> int:
    """The finaliser of SplitMix64: every bit of the word changes half of the bits of the result."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
