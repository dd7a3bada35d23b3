"""The simulator itself: its fluid against closed forms, its determinism, and what must hold in any world."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import Stage
from mec_platform.scenario.scenario import (
    DemandSpec,
    DeploymentSpec,
    EventSpec,
    LinkSpec,
    MeasurementSpec,
    NodeSpec,
    Scenario,
)
from mec_platform.simulation.compare import POLICIES, Comparison, slo_of
from mec_platform.simulation.controllers import Scheduled
from mec_platform.simulation.engine import Engine
from mec_platform.simulation.large import large_scenario
from mec_platform.simulation.noise import normal, uniform
from mec_platform.simulation.parts import independent_parts, joined_record
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.series import Series
from mec_platform.simulation.summary import criteria, room, summarise
from mec_platform.simulation.world import LinkSeries, World

FAST, SLOW = NodeSpec("fast", block_us=200), NodeSpec("slow", block_us=1000)
ALL_LINKS = LinkSpec("*", "*", mbit_per_s=100, round_trip_ms=4)


def make_world(series: dict[int, LinkSeries] | None = None, **changes: Any) -> World:
    values: dict[str, Any] = {
        "nodes": (FAST, SLOW),
        "links": (ALL_LINKS,),
        "deployments": (DeploymentSpec("chat", demand=DemandSpec(per_s=0.3, answer_tokens=64)),),
        "duration_s": 30.0,
    }
    return World(Scenario(**(values | changes)), series or {})


def run_fixed(world: World, node: str) -> RunRecord:
    comparison = Comparison.of(world, {})
    plans = {"chat": (Stage(node, LayerRange(0, 30)),)}
    engine = Engine(
        world, comparison.settings, comparison.requests, comparison.monitoring, Scheduled.fixed(plans, "test")
    )
    return engine.run("fixed")


def test_a_lone_session_gets_a_token_every_compute_time_and_round_trip():
    one = DeploymentSpec("chat", demand=DemandSpec(per_s=0.05, answer_tokens=100, prompt_tokens=1))
    record = run_fixed(make_world(deployments=(one,)), "fast")
    (served,) = record.deployments[0].served[:1]
    # 30 blocks, the head, a round trip, 64 bytes there and back at 12.5 MB/s; and 15 ns per block and position.
    fixed_s = 30 * 200e-6 + 600e-6 + 4e-3 + 2 * 64 / 12.5e6
    assert served.tpot_s == pytest.approx(fixed_s + 30 * 15e-9 * 50, rel=0.01)
    assert sum(flow.tokens for flow in record.deployments[0].flows) == pytest.approx(99)


def test_a_link_that_stands_still_stalls_tokens_for_as_long():
    stands_still = Series.of(
        [0.0, *[5 + 0.05 * i for i in range(400)], 25.0], [0.004, *[20 - 0.05 * i for i in range(400)], 0.004]
    )
    busy = DeploymentSpec("chat", demand=DemandSpec(per_s=2.0, answer_tokens=200), max_sessions=1)
    record = run_fixed(make_world({0: LinkSeries(stands_still)}, deployments=(busy,)), "fast")
    during = [flow for flow in record.deployments[0].flows if flow.start_s > 5 and flow.stop_s < 24]
    assert sum(flow.tokens for flow in during) < 10
    assert max(flow.tpot_s for flow in record.deployments[0].flows) > 10


def test_bytes_cross_a_link_whose_rate_changes_on_the_way():
    rates = Series.of([0.0, 10.0], [1e6, 4e6])
    world = make_world({0: LinkSeries(None, rates)})
    # 2 MB at 1 MB/s until 10 s, 8 MB at 4 MB/s after it, and half a round trip.
    assert world.transfer_end_s("fast", "slow", 10e6, 8.0) == pytest.approx(12.002)


def test_a_series_begins_again_and_knows_its_means():
    series = Series.of([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert [series.at(at_s) for at_s in (-1.0, 0.5, 2.9, 3.0, 4.5)] == [1.0, 1.0, 3.0, 1.0, 2.0]
    assert series.mean(0.0, 6.0) == pytest.approx(2.0)
    assert series.next_change_s(2.5) == pytest.approx(3.0)


def test_random_numbers_belong_to_their_key_and_are_spread_as_they_should_be():
    draws = [uniform(7, "key", number) for number in range(4000)]
    assert draws == [uniform(7, "key", number) for number in range(4000)]
    assert sum(draws) / 4000 == pytest.approx(0.5, abs=0.02)
    normals = [normal(7, "key", number) for number in range(4000)]
    assert sum(normals) / 4000 == pytest.approx(0.0, abs=0.05)
    assert sum(value**2 for value in normals) / 4000 == pytest.approx(1.0, abs=0.07)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    first, second = (Comparison.of(make_world(), {}).run("adaptive") for _ in range(2))
    other = Comparison.of(make_world(seed=2), {}).run("adaptive")
    assert first == second
    assert first.deployments[0].served != other.deployments[0].served


def test_all_policies_meet_the_same_requests_and_hindsight_is_not_beaten():
    fades = EventSpec(30.0, 50.0, source="gateway", target="fast", round_trip_ms=200)
    often = DeploymentSpec("chat", demand=DemandSpec(per_s=1.0, answer_tokens=64))
    comparison = Comparison.of(make_world(events=(fades,), deployments=(often,), duration_s=60.0), {})
    slos = {name: slo_of(each) for name, each in comparison.settings.items()}
    records = {policy: comparison.run(policy) for policy in POLICIES}
    summaries = {policy: summarise(record, slos) for policy, record in records.items()}
    mean = {policy: summary["tpot_ms"]["mean"] for policy, summary in summaries.items()}
    assert len({tuple(each.request for each in record.deployments[0].served) for record in records.values()}) == 1
    assert mean["static-best"] <= mean["even-split"]
    assert mean["oracle"] <= mean["static-best"]
    assert mean["adaptive"] < mean["static-best"]
    assert (room(summaries) or 0) > 1
    assert {each["name"] for each in criteria(summaries)} >= {"tpot_static_best_over_adaptive", "trust_violations"}


def test_a_change_of_plan_that_loses_its_node_comes_to_nothing():
    slow_loads = NodeSpec("fast", block_us=200, local_blocks=(), weights_mbit_per_s=100)
    dies = EventSpec(4.0, node="fast", lost=True)
    world = make_world(nodes=(slow_loads, SLOW), events=(dies,))
    comparison = Comparison.of(world, {})
    plans = {"chat": ((float("-inf"), (Stage("slow", LayerRange(0, 30)),)), (1.0, (Stage("fast", LayerRange(0, 30)),)))}
    engine = Engine(world, comparison.settings, comparison.requests, comparison.monitoring, Scheduled(plans))
    record = engine.run("scheduled").deployments[0]
    assert [each.outcome for each in record.reconfigurations] == ["committed", "aborted: fast was lost"]
    assert [stages[0].node for _, stages in record.plans] == ["slow"]


def test_a_lost_node_is_replayed_where_none_stands_by_and_not_where_one_does():
    """The same world and requests; a link between nodes that brings KV in a tenth of what computing it again takes."""
    dies, fast_links = EventSpec(12.0, node="fast", lost=True), LinkSpec("*", "*", mbit_per_s=1000, round_trip_ms=2)
    demand = DemandSpec(per_s=1.0, answer_tokens=400, prompt_tokens=200)
    changes = {}
    for standbys in (0, 1):
        chat = DeploymentSpec("chat", demand=demand, policy={"replicas": {"standbys": standbys}})
        world = make_world(events=(dies,), links=(fast_links,), deployments=(chat,), duration_s=20.0)
        record = Comparison.of(world, {}).run("adaptive").deployments[0]
        assert record.violations == []
        changes[standbys] = [(each.kind, each.trigger) for each in record.reconfigurations]
        rescue = next(each for each in record.reconfigurations if each.trigger == "node_lost")
        assert (rescue.replayed_tokens == 0) == (standbys == 1)
        assert (rescue.pause_s < 0.1) == (standbys == 1)
    assert ("standby", "standby") in changes[1]
    assert ("standby", "standby") not in changes[0]


def test_reports_that_get_lost_make_no_plan_change():
    world = make_world(measurement=MeasurementSpec(lost_share=0.05, noise=0.05))
    record = Comparison.of(world, {}).run("adaptive")
    assert len(record.deployments[0].plans) == 1


def test_a_large_world_fares_the_same_in_parts():
    scenario = replace(large_scenario(9, 3), duration_s=60.0)
    whole = Comparison.of(World(scenario, {}), {}).run("adaptive")
    parts = independent_parts(scenario, 2)
    records = [Comparison.of(World(part, {}), {}).run("adaptive") for part in parts]
    assert [len(part.deployments) for part in parts] == [2, 1]
    assert joined_record(records, [each.name for each in scenario.deployments]).deployments == whole.deployments


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.data())
def test_trust_is_kept_in_any_world(data: st.DataObject):
    speeds = data.draw(st.lists(st.sampled_from([100.0, 300.0, 900.0]), min_size=2, max_size=4))
    trusted = data.draw(st.lists(st.booleans(), min_size=len(speeds), max_size=len(speeds)))
    nodes = tuple(
        NodeSpec(f"node-{i}", block_us=speed, trusted=each)
        for i, (speed, each) in enumerate(zip(speeds, trusted, strict=True))
    )
    names = st.sampled_from([node.name for node in nodes])
    at = st.floats(1, 25)
    events = data.draw(
        st.lists(
            st.one_of(
                st.builds(EventSpec, at_s=at, node=names, trusted=st.booleans()),
                st.builds(EventSpec, at_s=at, node=names, lost=st.just(True)),
                st.builds(EventSpec, at_s=at, source=st.just("gateway"), target=names, round_trip_ms=st.just(300.0)),
            ),
            max_size=4,
        )
    )
    world = make_world(nodes=nodes, events=tuple(events), seed=data.draw(st.integers(0, 99)))
    record = Comparison.of(world, {}).run("adaptive")
    assert record.deployments[0].violations == []
