"""The cost formula: tiles, positions, and what holds for every profile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.cost_profile import Batch, CostProfile, RowCost, prompt_batch, tile_counts

PROFILE = CostProfile(
    source="measured",
    tile_rows=(4, 2, 1),
    block=RowCost(10.0, (8.0, 5.0, 4.0)),
    own_position_s=0.5,
    shared_position_s=0.1,
    head=RowCost(100.0, (4.0, 2.0, 1.0)),
    rms_error=0.05,
)

seconds = st.floats(min_value=0, max_value=1e3)
tiles = st.sampled_from([(1,), (2, 1), (8, 4, 2, 1), (12, 6, 3, 1)])


@st.composite
def profiles(draw: st.DrawFn) -> CostProfile:
    tile_rows = draw(tiles)

    def cost() -> RowCost:
        return RowCost(draw(seconds) + 1e-6, tuple(draw(seconds) for _ in tile_rows))

    return CostProfile("measured", tile_rows, cost(), draw(seconds), draw(seconds), cost(), draw(seconds))


def test_rows_are_cut_into_the_largest_tiles_first() -> None:
    assert tile_counts(15, (8, 4, 2, 1)) == (1, 1, 1, 1)
    assert tile_counts(17, (8, 4, 2, 1)) == (2, 0, 0, 1)


def test_a_block_costs_its_call_its_tiles_and_its_positions() -> None:
    assert PROFILE.block_s(Batch(1)) == 10 + 4
    assert PROFILE.block_s(Batch(5, own_positions=20)) == 10 + 8 + 4 + 20 * 0.5
    assert PROFILE.block_s(prompt_batch(2, start=3)) == 10 + 5 + (4 + 5) * 0.1


def test_a_full_tile_is_not_expected_to_beat_the_smaller_batch_that_needs_more_tiles() -> None:
    assert PROFILE.block_s(Batch(3)) == 10 + 5 + 4
    assert PROFILE.block_s(Batch(4)) == PROFILE.block_s(Batch(3))


def test_a_replay_costs_its_chunks_and_their_positions() -> None:
    chunk = 10 + 63 * 8 + 5 + 4  # of 255 rows, which take longer than 256
    assert PROFILE.replay_block_s(0) == 0
    assert PROFILE.replay_block_s(256) == pytest.approx(chunk + 256 * 257 / 2 * 0.1)
    assert PROFILE.replay_block_s(258) == pytest.approx(chunk + 10 + 5 + 258 * 259 / 2 * 0.1)


@given(profile=profiles(), rows=st.integers(1, 600), more=st.integers(0, 40), positions=seconds, extra=seconds)
def test_more_rows_and_more_positions_never_take_less(
    profile: CostProfile, rows: int, more: int, positions: float, extra: float
) -> None:
    before = profile.block_s(Batch(rows, positions, positions))
    assert before > 0
    assert before <= profile.block_s(Batch(rows + more, positions, positions))
    assert before <= profile.block_s(Batch(rows, positions + extra, positions + extra))
    assert 0 < profile.head_s(rows) <= profile.head_s(rows + more)
    assert profile.replay_block_s(rows) <= profile.replay_block_s(rows + more)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"own_position_s": -1e-9}, "between zero and"),
        ({"block": RowCost(float("nan"), (1.0, 1.0, 1.0))}, "between zero and"),
        ({"head": RowCost(1.0, (1.0,))}, "each size"),
        ({"tile_rows": (4, 2, 2)}, "descending"),
        ({"tile_rows": ()}, "descending"),
        ({"tile_rows": (2_000_000_000, 2, 1)}, "descending"),
        ({"shared_position_s": 1e300}, "between zero and"),
        ({"age_s": float("inf")}, "age"),
        ({"block": RowCost(0.0, (1.0, 1.0, 0.0))}, "takes time"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(PROFILE, **change)
