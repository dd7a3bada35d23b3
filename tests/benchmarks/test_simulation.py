"""The parts of `mec bench simulate` that predict. Times are not judged here."""

from __future__ import annotations

import pytest

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import Stage
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2
from tests.benchmarks.answers import Answer
from tests.benchmarks.simulation import predict, snapshot_of, token_ms


def test_predicts_the_sum_of_stages_and_hops_from_what_the_platform_told():
    link = types_pb2.LinkEstimate(peer="edge", bytes_per_s=64e6, round_trip_ms=4)
    model = types_pb2.ModelShape(name="model", blocks=10, hidden_bytes_per_row=2304)
    node = control_plane_pb2.MemberReport(
        name="edge",
        role=control_plane_pb2.MEMBER_ROLE_NODE,
        model=model,
        block_time_us=500,
        head_time_us=1000,
        trusted=True,
    )
    node.links.append(types_pb2.LinkEstimate(peer="gateway", bytes_per_s=64e6, round_trip_ms=2))
    gateway = control_plane_pb2.MemberReport(name="gateway", role=control_plane_pb2.MEMBER_ROLE_GATEWAY, links=[link])
    seen = snapshot_of(control_plane_pb2.Snapshot(now_s=5, members=[node, gateway]))
    cost = predict(seen, [Stage("edge", LayerRange(0, 10))], sessions=1, tokens=100)
    assert cost.compute_ms == pytest.approx(6.0)
    assert sum(cost.hop_ms) == pytest.approx(2 + 1 + 2 * 0.001)


def test_the_time_of_a_token_is_that_between_two_of_them():
    assert token_ms([Answer(tokens=[1, 2, 3], seconds=0.1)]) == pytest.approx(50)
