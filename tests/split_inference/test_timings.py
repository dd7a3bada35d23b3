"""Measured compute times: recent medians, in which runs that say nothing clear leave no trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_apps.split_inference.node.timings import PREFILL_ROWS, WINDOW, Timings


def test_nothing_is_claimed_before_the_first_run() -> None:
    timings = Timings()
    assert (timings.block_s, timings.prefill_block_s_per_row, timings.head_s) == (0.0, 0.0, 0.0)


def test_a_decode_run_counts_per_block_and_a_prefill_run_per_block_and_row() -> None:
    timings = Timings()
    timings.add_blocks(0.010, layers=10, rows=1)
    timings.add_blocks(0.640, layers=10, rows=32)
    assert timings.block_s == pytest.approx(0.001)
    assert timings.prefill_block_s_per_row == pytest.approx(0.002)


@given(st.integers(2, PREFILL_ROWS - 1))
def test_runs_between_decode_and_prefill_count_as_neither(rows: int) -> None:
    timings = Timings()
    timings.add_blocks(1.0, layers=1, rows=rows)
    timings.add_head(1.0, rows=rows)
    assert (timings.block_s, timings.prefill_block_s_per_row, timings.head_s) == (0.0, 0.0, 0.0)


@given(st.lists(st.floats(0.5, 1.5), min_size=WINDOW - 5, max_size=WINDOW - 5), st.floats(10, 1e6))
def test_a_few_disturbed_runs_do_not_move_the_median(usual: list[float], disturbed: float) -> None:
    timings = Timings()
    for seconds in (*usual, *[disturbed] * 5):
        timings.add_blocks(seconds, layers=1, rows=1)
        timings.add_head(seconds, rows=1)
    assert min(usual) <= timings.block_s <= max(usual)
    assert min(usual) <= timings.head_s <= max(usual)


def test_a_lasting_change_shows_once_it_fills_most_of_the_window() -> None:
    timings = Timings()
    for _ in range(WINDOW):
        timings.add_blocks(1.0, layers=1, rows=1)
    for _ in range(WINDOW // 2):
        timings.add_blocks(3.0, layers=1, rows=1)
    assert timings.block_s == 1.0
    timings.add_blocks(3.0, layers=1, rows=1)
    assert timings.block_s == 3.0
