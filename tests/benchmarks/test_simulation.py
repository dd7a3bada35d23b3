"""The parts of `mec bench simulate` that predict. Times are not judged here."""

from __future__ import annotations

import pytest

from mec_apps.cli.local_cluster import NodeOptions
from mec_apps.cli.testbed.calibration import Measures
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2
from tests.benchmarks.answers import Answer
from tests.benchmarks.simulation import MODEL, cost_model_ms, predict_ms, token_ms, world_of

STAGES = (Stage("edge", LayerRange(0, 10)),)


def measures() -> Measures:
    node = control_plane_pb2.MemberReport(
        name="edge",
        role=control_plane_pb2.MEMBER_ROLE_NODE,
        model=types_pb2.ModelShape(name=MODEL, blocks=10, hidden_bytes_per_row=2304),
        block_time_us=500,
        head_time_us=1000,
        memory_bytes=1 << 30,
        trusted=True,
    )
    node.links.append(types_pb2.LinkEstimate(peer="gateway", bytes_per_s=64e6, round_trip_ms=2))
    seen = control_plane_pb2.Snapshot(members=[node])
    return Measures(seen, SplitPlan(1, 0, MODEL, STAGES), {"edge": 0.008}, cores=2, token_s=0.008)


def test_one_session_takes_the_stage_and_the_hops_or_the_core_seconds_that_it_needs():
    world = world_of([NodeOptions("edge")], measures(), sessions=1, tokens=100)
    # 10 blocks and the head, there and back in 2 ms, 8 ms of a core.
    assert predict_ms(world, STAGES) == pytest.approx(8.0, rel=0.01)
    assert cost_model_ms(world, STAGES, sessions=1, tokens=100) == pytest.approx(8.0, rel=0.01)


def test_many_sessions_are_told_apart_from_the_cost_model_by_the_cores():
    world = world_of([NodeOptions("edge")], measures(), sessions=8, tokens=100)
    assert predict_ms(world, STAGES) > cost_model_ms(world, STAGES, sessions=8, tokens=100)


def test_the_time_of_a_token_is_that_between_two_of_them():
    assert token_ms([Answer(tokens=[1, 2, 3], seconds=0.1)]) == pytest.approx(50)
