"""Measured compute times: recent medians, in which runs that say nothing clear leave no trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_apps.split_inference.node.timings import PREFILL_ROWS, WINDOW, Timings
from mec_platform.domain.cost_profile import Batch, CostProfile, RowCost


def test_nothing_is_claimed_before_the_first_run() -> None:
    timings = Timings()
    assert (timings.block_s, timings.prefill_block_s_per_row, timings.head_s) == (0.0, 0.0, 0.0)


def test_a_decode_run_counts_per_block_and_a_prefill_run_per_block_and_row() -> None:
    timings = Timings()
    timings.add_blocks(0.010, layers=10, batch=Batch(1))
    timings.add_blocks(0.640, layers=10, batch=Batch(32))
    assert timings.block_s == pytest.approx(0.001)
    assert timings.prefill_block_s_per_row == pytest.approx(0.002)


@given(st.integers(2, PREFILL_ROWS - 1))
def test_runs_between_decode_and_prefill_count_as_neither(rows: int) -> None:
    timings = Timings()
    timings.add_blocks(1.0, layers=1, batch=Batch(rows))
    timings.add_head(1.0, rows=rows)
    assert (timings.block_s, timings.prefill_block_s_per_row, timings.head_s) == (0.0, 0.0, 0.0)


@given(st.lists(st.floats(0.5, 1.5), min_size=WINDOW - 5, max_size=WINDOW - 5), st.floats(10, 1e6))
def test_a_few_disturbed_runs_do_not_move_the_median(usual: list[float], disturbed: float) -> None:
    timings = Timings()
    for seconds in (*usual, *[disturbed] * 5):
        timings.add_blocks(seconds, layers=1, batch=Batch(1))
        timings.add_head(seconds, rows=1)
    assert min(usual) <= timings.block_s <= max(usual)
    assert min(usual) <= timings.head_s <= max(usual)


def test_a_lasting_change_shows_once_it_fills_most_of_the_window() -> None:
    timings = Timings()
    for _ in range(WINDOW):
        timings.add_blocks(1.0, layers=1, batch=Batch(1))
    for _ in range(WINDOW // 2):
        timings.add_blocks(3.0, layers=1, batch=Batch(1))
    assert timings.block_s == 1.0
    timings.add_blocks(3.0, layers=1, batch=Batch(1))
    assert timings.block_s == 3.0


def test_runs_of_any_batch_are_held_against_the_profile() -> None:
    timings = Timings(
        CostProfile("measured", (2, 1), RowCost(1.0, (2.0, 1.0)), 0.5, 0.1, RowCost(0.0, (0.0, 0.0)), 0.0)
    )
    assert timings.profile_ratio == 0.0
    timings.add_blocks(10.0, layers=2, batch=Batch(3, own_positions=2))  # 5 a block, the profile says 1 + 2 + 1 + 1
    assert timings.profile_ratio == pytest.approx(1.0)
    for _ in range(2):
        timings.add_blocks(
            24.0, layers=1, batch=Batch(20, shared_positions=10)
        )  # the profile says 1 + 20 + 1, 23 for 19
    assert timings.profile_ratio == pytest.approx(24 / 22)


def test_without_a_profile_nothing_is_held_against_it() -> None:
    timings = Timings()
    timings.add_blocks(1.0, layers=1, batch=Batch(1))
    assert timings.profile_ratio == 0.0
