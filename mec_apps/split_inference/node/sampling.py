"""Chooses a token from logits. Pure: the same arguments always give the same token, so that a replay repeats itself."""

from __future__ import annotations

import math

import numpy as np

# Weights in (0, 1] fall into bins of 1/64 octave, so that few of them are sorted; their bits order as they do. All that
# is below 2^-64 shares the last bin: together these hardly ever matter.
_BIN_SHIFT = 52 - 6
_LAST_BIN = 64 << 6
_BITS_OF_ONE = np.float64(1).view(np.int64)


def sample_token(logits: np.ndarray, temperature: float, top_p: float, seed: int, position: int) -> int:
    """Id of the next token, from float32 `logits` [vocab].

    Args:
        temperature: 0 takes the largest logit (the lowest id on ties), and so do logits that overflowed.
        top_p: the nucleus: the fewest most likely tokens whose probabilities reach it, in (0, 1].
        seed: of the session; with `position` (of the token to come) it decides the draw, no state is kept.

    Raises:
        ValueError: a temperature below 0, or a nucleus outside (0, 1].
    """
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], not {top_p}")
    largest = float(logits.max())
    if temperature == 0 or not math.isfinite(largest):
        return int(logits.argmax())
    weights = logits.astype(np.float64)
    weights -= largest
    weights /= temperature
    np.exp(weights, out=weights)
    return _draw(weights, top_p, _uniform(seed, position))


def _draw(weights: np.ndarray, top_p: float, uniform: float) -> int:
    """The token at the share `uniform` of the nucleus, whose tokens stand most likely first, ties by id.

    Sorts two bins only: the one in which the nucleus ends, and the one that the draw falls into.
    """
    bins = _BITS_OF_ONE - weights.view(np.int64)
    bins >>= _BIN_SHIFT
    np.minimum(bins, _LAST_BIN, out=bins)
    reached = np.cumsum(np.bincount(bins, weights))

    def sort_bin(number: int) -> tuple[np.ndarray, np.ndarray]:
        """Its tokens in order, and the weight reached with each."""
        tokens = np.flatnonzero(bins == number)
        tokens = tokens[np.argsort(-weights[tokens], kind="stable")]
        before = reached[number - 1] if number else 0.0
        return tokens, before + np.cumsum(weights[tokens])

    wanted = top_p * reached[-1]
    end = int(np.searchsorted(reached, wanted))
    tokens, sums = sort_bin(end)
    nucleus = int(np.searchsorted(sums, wanted)) + 1
    tokens, sums = tokens[:nucleus], sums[:nucleus]
    drawn = uniform * sums[-1]
    here = int(np.searchsorted(reached, drawn, side="right"))
    if here < end:
        tokens, sums = sort_bin(here)
    # The sums of a bin and of its tokens are rounded apart: the last token takes what is left.
    return int(tokens[min(int(np.searchsorted(sums, drawn, side="right")), len(tokens) - 1)])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that belongs to (seed, position): a counter-based generator needs no earlier draws."""
    generator = np.random.Generator(np.random.Philox(key=[seed % 2**64, position % 2**64]))
    return generator.random()
