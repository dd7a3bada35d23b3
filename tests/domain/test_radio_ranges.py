"""Report ranges against the rows of 3GPP's tables, and both ways through each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.radio_ranges import (
    EUTRA_RSRP,
    EUTRA_RSRQ,
    EUTRA_SINR,
    NR_RSRP,
    NR_RSRQ,
    NR_SINR,
    ReportRange,
)

ALL = (NR_RSRP, NR_RSRQ, NR_SINR, EUTRA_RSRP, EUTRA_RSRQ, EUTRA_SINR)


@pytest.mark.parametrize(
    ("reported", "value", "number"),
    [
        # TS 38.133 table 10.1.6.1-1
        (NR_RSRP, -156.1, 0),
        (NR_RSRP, -156.0, 1),
        (NR_RSRP, -155.0, 2),
        (NR_RSRP, -31.1, 125),
        (NR_RSRP, -31.0, 126),
        (NR_RSRP, 0.0, 126),
        # TS 38.133 table 10.1.11.1-1
        (NR_RSRQ, -43.1, 0),
        (NR_RSRQ, -43.0, 1),
        (NR_RSRQ, 19.9, 126),
        (NR_RSRQ, 20.0, 127),
        # TS 38.133 table 10.1.16.1-1
        (NR_SINR, -23.1, 0),
        (NR_SINR, -23.0, 1),
        (NR_SINR, 39.5, 126),
        (NR_SINR, 40.0, 127),
        # TS 36.133 table 9.1.4-1
        (EUTRA_RSRP, -140.1, 0),
        (EUTRA_RSRP, -140.0, 1),
        (EUTRA_RSRP, -44.1, 96),
        (EUTRA_RSRP, -44.0, 97),
        # TS 36.133 table 9.1.7-1
        (EUTRA_RSRQ, -19.6, 0),
        (EUTRA_RSRQ, -19.5, 1),
        (EUTRA_RSRQ, -3.1, 33),
        (EUTRA_RSRQ, -3.0, 34),
        # TS 36.133 table 9.1.17-1
        (EUTRA_SINR, -23.0, 1),
        (EUTRA_SINR, 40.0, 127),
    ],
)
def test_values_are_in_the_ranges_of_the_tables(reported: ReportRange, value: float, number: int):
    assert reported.report(value) == number


@given(st.sampled_from(ALL), st.floats(-250, 100))
def test_what_is_read_back_is_within_half_a_step_of_what_was_measured(reported: ReportRange, value: float):
    number = reported.report(value)
    last = reported.first + (reported.last - 1) * reported.step
    within = min(max(value, reported.first), last)
    assert abs(reported.value(number) - within) <= reported.step / 2 + 1e-9


@given(st.sampled_from(ALL), st.data())
def test_every_report_stands_for_a_value_of_its_own_range(reported: ReportRange, data: st.DataObject):
    number = data.draw(st.integers(1, reported.last))
    assert reported.report(reported.value(number)) == number


@pytest.mark.parametrize("number", [-1, 127])
def test_a_number_that_is_no_report_has_no_value(number: int):
    with pytest.raises(ValueError, match="no report"):
        NR_RSRP.value(number)
