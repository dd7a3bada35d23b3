"""Chooses a token from logits. Pure: the same arguments always give the same token, so that a replay repeats itself."""

from __future__ import annotations

import numpy as np


def sample_token(logits: np.ndarray, temperature: float, top_p: float, seed: int, position: int) -> int:
    """Id of the next token, from float32 `logits` [vocab].

    Args:
        temperature: 0 takes the largest logit (the lowest id on ties).
        top_p: the nucleus: the fewest most likely tokens whose probabilities reach it, in (0, 1].
        seed: of the session; with `position` (of the token to come) it decides the draw, no state is kept.

    Raises:
        ValueError: a temperature below 0, or a nucleus outside (0, 1].
    """
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], not {top_p}")
    if temperature == 0:
        return int(logits.argmax())
    scaled = (logits.astype(np.float64) - float(logits.max())) / temperature
    weights = np.exp(scaled)
    # Most likely first; ties by id, so that the order is the same everywhere.
    order = np.argsort(-weights, kind="stable")
    reached = np.cumsum(weights[order])
    nucleus = int(np.searchsorted(reached, top_p * reached[-1])) + 1
    draw = _uniform(seed, position) * reached[min(nucleus, len(order)) - 1]
    return int(order[np.searchsorted(reached[:nucleus], draw, side="right")])


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that belongs to (seed, position): a counter-based generator needs no earlier draws."""
    generator = np.random.Generator(np.random.Philox(key=[seed % 2**64, position % 2**64]))
    return generator.random()
