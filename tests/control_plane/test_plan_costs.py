"""What a plan costs beyond compute and hops: what is not sure, what is forecast, what a change takes, what fails together."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest

from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCosts, kv_positions, plan_cost
from mec_platform.control_plane.split_revision.explanation import explain_alternatives, explain_plan
from mec_platform.control_plane.split_revision.search import FoundPlan, NoPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import LinkCapacity, LinkForecast, Snapshot
from mec_platform.domain.split_plan import SplitPlan

SETTINGS = PlanSettings(kv_tokens_reserved=0, kv_growth_tokens=0, beta=0.0, gamma_ms=0.0)


def best(snapshot: Snapshot, settings: PlanSettings = SETTINGS) -> FoundPlan:
    found = best_plan(snapshot, settings)
    assert isinstance(found, FoundPlan)
    return found


def hop_ms(snapshot: Snapshot, settings: PlanSettings = SETTINGS) -> float:
    return PlanCosts(snapshot, settings).between("a", "b").latency_ms


def linked(world: SimpleNamespace, **changes: object) -> Snapshot:
    """Two nodes with a link from a to b that takes 2.304 ms for a row and 0.2 ms on the way."""
    link = replace(LinkCapacity("a", "b", 1e6, 0.0004), **changes)
    snapshot: Snapshot = world.snapshot([world.node("a"), world.node("b")], links=(link,))
    return snapshot


def test_a_step_carries_a_row_for_each_session(world: SimpleNamespace) -> None:
    snapshot = linked(world)
    assert hop_ms(snapshot) == pytest.approx(0.2 + 2.304)
    busy = replace(snapshot, gateways=(world.gateway(sessions=5),))
    assert hop_ms(busy) == pytest.approx(0.2 + 5 * 2.304)


def test_an_unsure_link_is_nearer_to_the_default(world: SimpleNamespace) -> None:
    default = 1.0 + 2304 / 12.5e6 * 1e3
    assert hop_ms(linked(world, confidence=0.0)) == pytest.approx(default)
    assert hop_ms(linked(world, confidence=0.25)) == pytest.approx(0.75 * default + 0.25 * 2.504)


def test_a_forecast_counts_by_its_confidence(world: SimpleNamespace) -> None:
    forecast = LinkForecast(5.0, 0.5e6, 0.0004, 0.5, "signal falls")
    assert hop_ms(linked(world, forecast=forecast)) == pytest.approx(0.2 + 1.5 * 2.304)
    soon = replace(forecast, bytes_per_s=1e6, breaks_in_s=10.0)
    assert hop_ms(linked(world, forecast=soon)) == pytest.approx(2.504 + 0.5 * SETTINGS.broken_link_ms)
    assert hop_ms(linked(world, forecast=replace(soon, breaks_in_s=60.0))) == pytest.approx(2.504)


def test_a_link_that_will_break_is_left_before_it_does(world: SimpleNamespace) -> None:
    nodes = [world.node(name, memory_bytes=8_000_000) for name in ("a", "b", "c")]
    links = world.links(["a", "b", "c", "gateway"])
    assert best(world.snapshot(nodes, links=links)).plan.nodes == ("a", "b")
    forecast = LinkForecast(5.0, 12.5e6, 0.0004, 0.9, "handover", breaks_in_s=3.0)
    breaking = tuple(replace(link, forecast=forecast) if "b" in (link.source, link.target) else link for link in links)
    assert best(world.snapshot(nodes, links=breaking)).plan.nodes == ("a", "c")


def test_links_between_sites_count_where_members_have_none_of_their_own(world: SimpleNamespace) -> None:
    nodes = [world.node("a", site="x"), world.node("b", site="y")]
    between = LinkCapacity("x", "y", 1e6, 0.01)
    snapshot = world.snapshot(nodes, links=(), site_links=(between,))
    assert hop_ms(snapshot) == pytest.approx(5.0 + 2.304)
    own = replace(snapshot, links=(LinkCapacity("a", "b", 1e6, 0.0004),))
    assert hop_ms(own) == pytest.approx(0.2 + 2.304)


def test_a_slow_link_is_the_bottleneck_of_a_pipeline(world: SimpleNamespace) -> None:
    snapshot = world.snapshot([world.node("a"), world.node("b")], links=world.links(["a", "b", "gateway"], a__b=1e5))
    cost = plan_cost(world.plan(1, ("a", 0, 6), ("b", 6, 12)).stages, snapshot, SETTINGS)
    assert cost is not None
    assert cost.bottleneck_ms == pytest.approx(23.04)


def test_throughput_splits_where_latency_does_not(world: SimpleNamespace) -> None:
    snapshot = world.snapshot([world.node("a"), world.node("b")])
    assert len(best(snapshot, SETTINGS.for_objective("latency")).plan.stages) == 1
    found = best(snapshot, SETTINGS.for_objective("throughput"))
    assert [len(stage.layers) for stage in found.plan.stages] == [6, 6]


def test_a_link_that_is_too_slow_for_the_target_is_not_used(world: SimpleNamespace) -> None:
    nodes = [world.node(name, memory_bytes=8_000_000) for name in ("a", "b", "c")]
    slow = world.snapshot(nodes, links=world.links(["a", "b", "c", "gateway"], a__b=1e6, b__a=1e6))
    limited = replace(SETTINGS, longest_transmission_ms=2.0)
    assert best(slow, limited).plan.nodes == ("a", "c")
    plan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    assert check_stages(plan, slow, SETTINGS) == []
    assert check_stages(plan, slow, limited) == [
        "link a -> b takes 2.30 ms for a step, at most 2 ms are allowed",
    ]
    nowhere = best_plan(world.snapshot(nodes), replace(SETTINGS, longest_transmission_ms=0.001))
    assert isinstance(nowhere, NoPlan)
    assert "links that take more than 0.001 ms for a step are not used" in nowhere.reason


def test_kv_has_room_to_grow(world: SimpleNamespace) -> None:
    snapshot = world.snapshot([world.node("a")], gateways=(world.gateway(sessions=3, context_positions=900),))
    assert kv_positions(snapshot, replace(SETTINGS, kv_growth_tokens=100)) == 1200
    assert kv_positions(snapshot, replace(SETTINGS, kv_growth_tokens=100, kv_tokens_reserved=5000)) == 5000
    tight = world.snapshot([world.node("a", memory_bytes=13_300_000)])
    assert best(tight).plan.nodes == ("a",)
    grown = best_plan(tight, replace(SETTINGS, kv_growth_tokens=200))
    assert isinstance(grown, NoPlan)
    assert "KV for 400 positions" in grown.reason
    errors = check_stages(world.plan(1, ("a", 0, 12)), tight, replace(SETTINGS, kv_growth_tokens=200))
    assert (
        check_stages(world.plan(1, ("a", 0, 12)), tight, replace(SETTINGS, kv_growth_tokens=200), committed=True) == []
    )
    assert errors == ["node a offers 13.3 MB, blocks [0, 12) need 13.5 MB"]


def test_the_last_blocks_stay_on_trusted_nodes_too(world: SimpleNamespace) -> None:
    nodes = [world.node("a", block_time_s=0.01), world.node("b", trusted=False), world.node("c", block_time_s=0.01)]
    snapshot = world.snapshot(nodes)
    shielded = replace(SETTINGS, trusted_first_blocks=3, trusted_last_blocks=4)
    (middle,) = (stage for stage in best(snapshot, shielded).plan.stages if stage.node == "b")
    assert (middle.layers.start, middle.layers.stop) == (3, 8)
    deep = check_stages(world.plan(1, ("a", 0, 3), ("b", 3, 9), ("c", 9, 12)), snapshot, shielded)
    assert deep == ["node b is not trusted and blocks [3, 9) are among the last 4, which need a trusted node"]


def test_nodes_without_an_artefact_and_of_other_chains_are_not_used(world: SimpleNamespace) -> None:
    other = world.plan(3, ("b", 0, 12))
    nodes = [world.node("a", runs_model=False), world.node("b"), world.node("c", block_time_s=0.01)]
    snapshot = world.snapshot(nodes, replicas=(other,))
    assert best(snapshot).plan.nodes == ("c",)
    assert check_stages(world.plan(1, ("a", 0, 6), ("b", 6, 12)), snapshot, SETTINGS) == [
        "node a has no artefact of the model for its target",
        "node b is in another chain of the deployment, b [0, 12)",
    ]
    none = best_plan(world.snapshot(nodes[:2], replicas=(other,)), SETTINGS)
    assert isinstance(none, NoPlan)
    assert none.reason == (
        "no plan: none of 2 live nodes may be used: 1 have no artefact of the model for their target, "
        "1 are in another chain of the deployment"
    )


def test_a_chain_avoids_what_another_one_fails_with(world: SimpleNamespace) -> None:
    nodes = [world.node("a", group="rack"), world.node("b", group="rack", block_time_s=0.0009), world.node("c")]
    chain = world.plan(3, ("a", 0, 12))
    snapshot = world.snapshot(nodes)
    assert best(snapshot).plan.nodes == ("b",)
    beside = replace(snapshot, replicas=(chain,))
    assert best(beside).plan.nodes == ("c",)
    assert best(beside, replace(SETTINGS, shared_group_ms=0.5)).plan.nodes == ("b",)
    excluded = best_plan(beside, SETTINGS, exclude=frozenset(chain.nodes))
    assert isinstance(excluded, FoundPlan)
    assert excluded.plan.nodes == ("c",)


def moving(world: SimpleNamespace, plan: SplitPlan | None, **second: object) -> Snapshot:
    """The first node has the plan, the second is a little quicker."""
    nodes = [world.node("a"), world.node("b", block_time_s=0.0009, **second)]
    snapshot: Snapshot = world.snapshot(nodes, plan=plan)
    return snapshot


def test_a_change_must_pay_for_itself_within_the_horizon(world: SimpleNamespace) -> None:
    snapshot = moving(world, world.plan(1, ("a", 0, 12)))
    assert best(snapshot).plan.nodes == ("b",)
    # 12 blocks of 200 positions of 100 bytes at 12.5 MB/s are 19.2 ms, a change is 220 ms, and it saves 1.2 ms a token.
    sticky = replace(SETTINGS, switch_horizon_tokens=190)
    assert best(snapshot, sticky).plan.nodes == ("a",)
    found = best(snapshot, replace(SETTINGS, switch_horizon_tokens=210))
    assert found.plan.nodes == ("b",)
    assert found.cost.switch_ms == pytest.approx((200 + 20 + 12 * 1.6) / 210)
    assert found.cost.settled_ms == pytest.approx(found.cost.total_ms - found.cost.switch_ms)


def test_weights_that_must_be_fetched_count_and_those_held_do_not(world: SimpleNamespace) -> None:
    settings = replace(SETTINGS, switch_horizon_tokens=1000)
    plan = world.plan(1, ("a", 0, 12))
    far = moving(world, plan, local_blocks=frozenset({3}), weights_bytes_per_s=1e6)
    cost = plan_cost(world.plan(2, ("b", 0, 12)).stages, far, settings)
    assert cost is not None
    assert cost.switch_ms == pytest.approx((220 + 12 * 1.6 + 11 * 1000 + 500 + 500) / 1000)
    assert best(far, settings).plan == plan
    without_plan = best(replace(far, plan=None), settings)
    assert without_plan.plan.nodes == ("a",)
    kept = plan_cost(
        plan.stages, replace(far, nodes=(replace(far.nodes[0], local_blocks=frozenset()), far.nodes[1])), settings
    )
    assert kept is not None
    assert kept.switch_ms == 0


def test_kv_of_a_lost_node_is_computed_again(world: SimpleNamespace) -> None:
    settings = replace(SETTINGS, switch_horizon_tokens=100)
    snapshot = moving(world, world.plan(1, ("gone", 0, 12)))
    cost = plan_cost(world.plan(2, ("b", 0, 12)).stages, snapshot, settings)
    assert cost is not None
    assert cost.switch_ms == pytest.approx((220 + 12 * 200 * 0.1) / 100)


def test_an_explanation_says_what_a_change_takes_and_why_not_another_plan(world: SimpleNamespace) -> None:
    nodes = [world.node("a"), world.node("b", trusted=False, block_time_s=0.0005), world.node("c", block_time_s=0.002)]
    snapshot = world.snapshot(nodes)
    settings = replace(SETTINGS, switch_horizon_tokens=100, throughput=0.5)
    found = best(snapshot, settings)
    lines = explain_plan(found.plan, snapshot, settings, found.gap)
    assert lines[-1] == "proven to be the best plan"
    assert "switch 0.00 ms: weights, KV and pauses of going there, over 100 tokens" in lines
    assert "+ 0.5 x busiest" in lines[-2]
    others = explain_alternatives(found.plan, snapshot, settings)
    assert any(
        "all on one node: b [0, 12) would cost" in line and "but node b is not trusted" in line for line in others
    )
    assert any(line.startswith("all on one node: c [0, 12) costs") and line.endswith("ms more") for line in others)
    assert any(line.startswith("even split over the quickest nodes: ") for line in others)


def test_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="trusted_last_blocks"):
        PlanSettings(trusted_last_blocks=-1)
    with pytest.raises(ValueError, match="dense_nodes"):
        PlanSettings(dense_nodes=65)
    assert PlanSettings().longest_transmission_ms == inf
