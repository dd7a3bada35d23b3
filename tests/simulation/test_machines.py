"""Members that share the cores of a machine, against closed forms."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import Stage
from mec_platform.scenario.scenario import (
    DemandSpec,
    DeploymentSpec,
    GatewaySpec,
    LinkSpec,
    MachineSpec,
    MeasurementSpec,
    NodeSpec,
    Scenario,
)
from mec_platform.simulation.compare import Comparison
from mec_platform.simulation.controllers import Scheduled
from mec_platform.simulation.engine import Engine
from mec_platform.simulation.machines import Work, others_on, shared_token_s
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.summary import weighted_quantile
from mec_platform.simulation.world import World

STAGES = tuple(Stage(f"edge-{n}", LayerRange(10 * n - 10, 10 * n)) for n in (1, 2, 3))


def site(streams: int, cores: float | None) -> Scenario:
    """Three nodes of one machine, 10 blocks of 200 us each and 1 ms for a frame; nothing grows with rows or positions."""
    nodes = tuple(
        NodeSpec(stage.node, machine="one", row_us=0, head_us=0, head_row_us=0, position_ns=0, frame_us=1000)
        for stage in STAGES
    )
    demand = DemandSpec(streams=streams, prompt_tokens=1, answer_tokens=200)
    return Scenario(
        nodes,
        (DeploymentSpec("chat", demand=demand, max_sessions=64),),
        (GatewaySpec("gateway", machine="one"),),
        (MachineSpec("one", cores),) if cores else (),
        (LinkSpec("*", "*", mbit_per_s=1e5, round_trip_ms=2),),
        measurement=MeasurementSpec(noise=0),
        duration_s=20.0,
    )


def serve(scenario: Scenario) -> RunRecord:
    world = World(scenario, {})
    comparison = Comparison.of(world, {})
    plan = Scheduled.fixed({"chat": STAGES}, "test")
    return Engine(world, comparison.settings, comparison.requests, comparison.monitoring, plan).run("fixed")


def usual_ms(record: RunRecord) -> float:
    """The median over tokens: of those beside no prompt, which slows the others down for as long as it is computed."""
    return weighted_quantile(sorted((f.tpot_s * 1e3, f.tokens) for f in record.deployments[0].flows), 50)


def test_a_lone_session_takes_what_it_takes_alone():
    assert shared_token_s(0.013, [Work(2, 0.010)], 1) == pytest.approx(0.013)
    assert shared_token_s(0.013, [], 5) == pytest.approx(0.013)


def test_more_core_seconds_than_time_are_waited_for():
    assert shared_token_s(0.010, [Work(2, 0.013)], 1) == pytest.approx(0.013)


def test_one_core_without_delay_serves_one_after_the_other():
    for sessions in (1, 2, 7):
        assert shared_token_s(0.01, [Work(1, 0.01)], sessions) == pytest.approx(0.01 * sessions)


def test_many_sessions_are_bound_by_the_cores_and_by_nothing_else():
    assert shared_token_s(0.02, [Work(2, 0.01)], 200) == pytest.approx(200 * 0.01 / 2, rel=0.02)
    assert shared_token_s(0.02, [Work(2, 0.01), Work(1, 0.008)], 200) == pytest.approx(200 * 0.008, rel=0.02)


def test_no_number_of_sessions_is_served_faster_than_any_bound_allows():
    before = 0.0
    for sessions in range(1, 40):
        token_s = shared_token_s(0.013, [Work(2, 0.010)], sessions)
        assert token_s >= max(0.013, sessions * 0.010 / 2) - 1e-12
        assert token_s >= before
        before = token_s


def test_threads_of_others_take_their_part_of_the_cores_and_are_found_by_what_a_lone_token_took():
    assert shared_token_s(0.01, [Work(1, 0.01, others=2)], 1) == pytest.approx(0.03)
    work, crowded = Work(2, 0.010), Work(2, 0.010, others=1.5)
    assert others_on(0.013, work, shared_token_s(0.013, [crowded], 1)) == pytest.approx(1.5)
    assert others_on(0.013, work, 0.012) == 0.0


def test_sessions_on_a_machine_whose_cores_are_counted_queue_for_them():
    # 9 core-milliseconds a token; alone it takes 6 ms of computing and four hops of a millisecond.
    assert usual_ms(serve(site(1, 2.0))) == pytest.approx(10.0, rel=0.01)
    assert usual_ms(serve(site(1, None))) == pytest.approx(10.0, rel=0.01)
    assert usual_ms(serve(site(2, None))) == pytest.approx(10.0, rel=0.01)
    assert usual_ms(serve(site(2, 2.0))) == pytest.approx(1e3 * shared_token_s(0.010, [Work(2, 0.009)], 2), rel=0.01)
    # Of 8 sessions two are at each stage, whose rows go together: half the computing, and every frame for itself.
    assert usual_ms(serve(site(8, 2.0))) == pytest.approx(1e3 * shared_token_s(0.010, [Work(2, 0.006)], 8), rel=0.01)


def test_streams_ask_again_as_soon_as_they_are_answered_until_the_run_is_over():
    record = serve(site(3, 2.0))
    served = record.deployments[0].served
    assert all(each.done_s is not None and each.request.at_s < 20.0 for each in served)
    starts = sorted(each.request.at_s for each in served)
    ends = sorted(each.done_s for each in served if each.done_s is not None)
    assert starts[:3] == [0.0] * 3
    # Each later request comes when another one has ended.
    assert starts[3:] == pytest.approx([at_s for at_s in ends if at_s < 20.0])


def test_what_is_simulated_of_streams_can_be_compared_in_hindsight():
    comparison = Comparison.of(World(replace(site(2, 2.0), duration_s=10.0), {}), {})
    tokens = {
        policy: sum(flow.tokens for flow in comparison.run(policy).deployments[0].flows)
        for policy in ("adaptive", "static-best", "oracle")
    }
    assert tokens["oracle"] >= 0.95 * tokens["static-best"] > 0
