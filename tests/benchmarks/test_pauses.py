"""What the benchmark of changes says of an answer's times: by hand, with changes and noise where they were put."""

from __future__ import annotations

from itertools import accumulate

import pytest

from tests.benchmarks.answers import Answer
from tests.benchmarks.pauses import Change, copying_times, longest_stalls, ordinary_excesses, pauses_seen
from tests.benchmarks.steady import shares

GAP_S = 0.010


def answer(gaps_s: list[float], epochs: list[int]) -> Answer:
    """Tokens that came after these gaps; the first one came at 0."""
    return Answer(tokens=[0] * len(epochs), came_s=list(accumulate(gaps_s, initial=0.0)), epochs=epochs)


CHANGED = answer([GAP_S] * 20 + [0.030] * 5 + [0.045] + [0.020] * 12, [1] * 26 + [2] * 13)
"""20 tokens, 5 while KV was copied, then one on another, slower plan after a pause of 25 ms, and 12 more on it."""

CHANGE = Change(began_s=0.2005, prepared_s=0.2005, ended_s=0.394)


def test_a_pause_is_what_the_first_token_of_a_plan_took_longer_than_the_next_ones_on_it() -> None:
    assert pauses_seen(CHANGED) == [pytest.approx(25)]


def test_tokens_during_a_change_are_no_ordinary_ones() -> None:
    assert max(ordinary_excesses(CHANGED, [CHANGE])) == pytest.approx(0)
    assert max(ordinary_excesses(CHANGED, [])) > 0


def test_a_stall_that_preparing_a_plan_makes_counts_though_the_new_plan_begins_at_once() -> None:
    stalled = answer([GAP_S] * 10 + [0.060] + [GAP_S] * 16, [1] * 14 + [2] * 14)
    found = longest_stalls(stalled, Change(began_s=0.101, prepared_s=0.16, ended_s=0.19))
    assert found == (pytest.approx(50), pytest.approx(0))
    assert pauses_seen(stalled) == [pytest.approx(0)]


def test_copying_is_held_against_the_same_plan_undisturbed() -> None:
    took_s, usual_s = copying_times(CHANGED, [CHANGE])
    assert (took_s, usual_s) == (pytest.approx(0.150), pytest.approx(0.050))


def test_the_share_of_a_chain_is_the_median_over_turns_and_as_sure_as_they_agree() -> None:
    share, unsure = shares([1.01, 1.02, 1.03, 9.0], [1.0] * 4)
    assert share == pytest.approx(0.025)
    assert 0 < unsure < 0.05
    assert shares([1.02] * 5, [1.0] * 5) == (pytest.approx(0.02), pytest.approx(0))
