"""Sampling: greedy, the nucleus, and draws that repeat themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_apps.split_inference.node.sampling import sample_token

LOGITS = np.log(np.array([0.05, 0.5, 0.1, 0.3, 0.05], np.float32))


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


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10**6), st.floats(0.01, 5), st.floats(0.01, 1), st.integers(1, 200))
def test_a_replay_draws_the_same_token(seed: int, position: int, heat: float, top_p: float, size: int) -> None:
    logits = np.random.default_rng(size).normal(size=size).astype(np.float32) * 20
    token = sample_token(logits, heat, top_p, seed, position)
    assert 0 <= token < size
    assert sample_token(logits.copy(), heat, top_p, seed, position) == token


@pytest.mark.parametrize(("temperature", "top_p"), [(-1, 1), (1, 0), (1, 1.5)])
def test_settings_out_of_range_are_refused(temperature: float, top_p: float) -> None:
    with pytest.raises(ValueError, match="must"):
        sample_token(LOGITS, temperature, top_p, 0, 0)
