"""Reports are bounded before anything is computed with them: what no member can mean is refused in words."""

from __future__ import annotations

import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.control_plane.monitoring.report_messages import MAX_LINKS, MAX_REPORT_BYTES, ReportReader, problem_of
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2


def report(**changes: object) -> control_plane_pb2.MemberReport:
    usual = {"name": "edge-1", "role": control_plane_pb2.MEMBER_ROLE_NODE, "address": "192.0.2.1:1", "incarnation": "1"}
    return control_plane_pb2.MemberReport(**(usual | changes))


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 1e300])
@pytest.mark.parametrize("field", ["block_time_us", "tokens_per_s", "profile_ratio", "weights_bytes_per_s", "token_ms"])
def test_numbers_that_nobody_measures_are_refused(field, number):
    assert problem_of(report(**{field: number})) is not None
    assert problem_of(report(**{field: 1.0})) is None


@pytest.mark.parametrize("field", ["bytes_per_s", "round_trip_ms", "age_s"])
def test_links_are_looked_at_too(field):
    for number in (math.nan, math.inf):
        link = types_pb2.LinkEstimate(peer="edge-2", **{field: number})
        assert problem_of(report(links=[link])) is not None


def test_a_report_has_a_size():
    links = [types_pb2.LinkEstimate(peer="edge-2")]
    assert problem_of(report(links=links * MAX_LINKS)) is None
    assert problem_of(report(links=links * (MAX_LINKS + 1))) is not None
    assert problem_of(report(site="x" * MAX_REPORT_BYTES)) is not None


WHOLE = report(
    links=[types_pb2.LinkEstimate(peer="edge-2", bytes_per_s=1e6, round_trip_ms=1.0)],
    profile=types_pb2.CostProfile(
        source="measured",
        tile_rows=[8, 1],
        block=types_pb2.RowCost(call_us=1.0, tile_us=[8.0, 2.0]),
        head=types_pb2.RowCost(call_us=1.0, tile_us=[8.0, 2.0]),
        own_position_us=0.01,
        shared_position_us=0.01,
    ),
).SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_report_is_read_or_refused(changes):
    payload = bytearray(WHOLE)
    for index, value in changes:
        payload[index] = value
    try:
        read = control_plane_pb2.MemberReport.FromString(bytes(payload))
    except DecodeError:  # gRPC answers this before anything here is asked
        return
    if problem_of(read) is None:
        try:
            ReportReader().read(read, 0.0)
        except ValueError:
            return
