"""Sampling: greedy, the nucleus, and draws that repeat themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_apps.split_inference.node.sampling import _uniform, sample_token

LOGITS = np.log(np.array([0.05, 0.5, 0.1, 0.3, 0.05], np.float32))


def sample_by_sorting(logits: np.ndarray, temperature: float, top_p: float, seed: int, position: int) -> int:
    """The definition: all tokens sorted, most likely first, ties by id."""
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / temperature)
    order = np.argsort(-weights, kind="stable")
    reached = np.cumsum(weights[order])
    nucleus = min(int(np.searchsorted(reached, top_p * reached[-1])) + 1, len(order))
    draw = _uniform(seed, position) * reached[nucleus - 1]
    return int(order[np.searchsorted(reached[: nucleus - 1], draw, side="right")])


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    assert sample_token(np.array([1, 3, 2, 3], np.float32), 0, 1, 0, 0) == 1


def test_a_small_nucleus_is_greedy() -> None:
    assert {sample_token(LOGITS, 1, 0.4, 1, position) for position in range(50)} == {1}


def test_the_nucleus_leaves_out_the_unlikely() -> None:
    assert {sample_token(LOGITS, 1, 0.8, 1, position) for position in range(300)} == {1, 3}


def test_draws_follow_the_probabilities() -> None:
    draws = [sample_token(LOGITS, 1, 1, 9, position) for position in range(4000)]
    shares = np.bincount(draws, minlength=5) / len(draws)
    np.testing.assert_allclose(shares, np.exp(LOGITS), atol=0.03)


def test_heat_flattens() -> None:
    draws = [sample_token(LOGITS, 100, 1, 9, position) for position in range(4000)]
    np.testing.assert_allclose(np.bincount(draws, minlength=5) / len(draws), 0.2, atol=0.03)


@settings(derandomize=True, max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 10**6), st.floats(0.01, 5), st.floats(0.01, 1), st.integers(1, 200))
def test_a_replay_draws_the_same_token(seed: int, position: int, heat: float, top_p: float, size: int) -> None:
    logits = np.random.default_rng(size).normal(size=size).astype(np.float32) * 20
    token = sample_token(logits, heat, top_p, seed, position)
    assert 0 <= token < size
    assert sample_token(logits.copy(), heat, top_p, seed, position) == token


@settings(derandomize=True, max_examples=300)
@given(
    st.integers(0, 99),
    st.integers(1, 3000),
    st.sampled_from([0, 0.001, 0.5, 3, 30]),
    st.sampled_from([0.01, 0.3, 1, 2, 1000]),
    st.sampled_from([0.001, 0.1, 0.5, 0.9, 0.999, 1]),
    st.sampled_from([None, 0, 1]),
)
def test_draws_are_those_of_a_full_sort(
    seed: int, size: int, spread: float, heat: float, top_p: float, digits: int | None
) -> None:
    """From flat to peaked; rounded logits have ties."""
    logits = (np.random.default_rng(seed).normal(size=size) * spread).astype(np.float32)
    if digits is not None:
        logits = logits.round(digits)
    for position in range(5):
        expected = sample_by_sorting(logits, heat, top_p, seed, position)
        assert sample_token(logits, heat, top_p, seed, position) == expected


@pytest.mark.parametrize("top_p", [0.5, 1])
def test_equals_are_drawn_in_order_of_their_ids(top_p: float) -> None:
    flat = np.zeros(1000, np.float32)
    for position in range(50):
        drawn = int(_uniform(3, position) * 1000 * top_p)
        assert sample_token(flat, 1, top_p, 3, position) == drawn


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.full(100, -np.inf, np.float32)
    logits[[7, 70]] = -1000
    assert {sample_token(logits, 5, 1, 1, position) for position in range(50)} == {7, 70}


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_logits_that_overflowed_still_give_a_token(wrong: float) -> None:
    assert sample_token(np.array([1, wrong, 2], np.float32), 1, 1, 0, 0) == 1


@pytest.mark.parametrize(("temperature", "top_p"), [(-1, 1), (1, 0), (1, 1.5)])
def test_settings_out_of_range_are_refused(temperature: float, top_p: float) -> None:
    with pytest.raises(ValueError, match="must"):
        sample_token(LOGITS, temperature, top_p, 0, 0)
