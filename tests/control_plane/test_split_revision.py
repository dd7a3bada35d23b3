"""Split Revision: the search against brute force, the checker against the search, costs and explanations."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.control_plane.split_revision.cost_model import exposed_share, plan_cost
from mec_platform.control_plane.split_revision.explanation import explain_plan
from mec_platform.control_plane.split_revision.search import FoundPlan, NoPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import LinkCapacity, Snapshot
from mec_platform.domain.layers import LayerRange, ranges_from_cuts
from mec_platform.domain.split_plan import SplitPlan, Stage
from tests.control_plane.exact_plans import least_cost_of_all

ROOMY = PlanSettings(kv_tokens_reserved=0, kv_growth_tokens=0)
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def small_worlds(draw: st.DrawFn, world: SimpleNamespace, max_nodes: int = 4) -> tuple[Snapshot, PlanSettings]:
    names = [f"edge-{i}" for i in range(draw(st.integers(1, max_nodes)))]
    nodes = [
        world.node(
            name,
            trusted=draw(st.booleans()) or draw(st.booleans()),
            memory_bytes=draw(st.integers(1, 9)) * 1_000_000,
            block_time_s=draw(st.sampled_from([0.0005, 0.001, 0.002, 0.005])),
            head_time_s=draw(st.sampled_from([0.0005, 0.003])),
        )
        for name in names
    ]
    links = tuple(
        LinkCapacity(a, b, draw(st.sampled_from([0.0, 5e4, 1e6, 1.25e7])), draw(st.sampled_from([0.0002, 0.004])))
        for a in [*names, "gateway"]
        for b in [*names, "gateway"]
        if a != b and draw(st.integers(0, 5))
    )
    plan_settings = PlanSettings(
        beta=draw(st.sampled_from([0.0, 0.5, 3.0])),
        gamma_ms=draw(st.sampled_from([0.0, 4.0])),
        trusted_first_blocks=draw(st.integers(0, 3)),
        kv_tokens_reserved=draw(st.sampled_from([0, 1000])),
    )
    blocks = draw(st.integers(1, 7))
    return world.snapshot(nodes, links=links, model=world.model(blocks)), plan_settings


@given(data=st.data())
@REPEATABLE
def test_search_finds_what_brute_force_finds(world: SimpleNamespace, data: st.DataObject) -> None:
    snapshot, plan_settings = data.draw(small_worlds(world))
    least = least_cost_of_all(snapshot, plan_settings)
    found = best_plan(snapshot, plan_settings)
    if least is None:
        assert isinstance(found, NoPlan)
        assert found.reason.startswith("no plan: ")
        return
    assert isinstance(found, FoundPlan)
    assert found.cost.total_ms == pytest.approx(least, abs=1e-6)
    assert found.gap == 0
    assert check_plan(found.plan, snapshot, plan_settings) == []


@given(data=st.data())
@REPEATABLE
def test_the_current_plan_stays_when_nothing_is_better(world: SimpleNamespace, data: st.DataObject) -> None:
    snapshot, plan_settings = data.draw(small_worlds(world))
    found = best_plan(snapshot, plan_settings)
    if isinstance(found, FoundPlan):
        again = best_plan(replace(snapshot, plan=found.plan), plan_settings)
        assert isinstance(again, FoundPlan)
        assert again.plan == found.plan


def test_current_plan_wins_a_tie_between_equal_nodes(world: SimpleNamespace) -> None:
    nodes = [world.node(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        current = world.plan(7, (name, 0, 12))
        found = best_plan(world.snapshot(nodes, plan=current), replace(ROOMY, beta=0.0))
        assert isinstance(found, FoundPlan)
        assert found.plan == current


def test_without_a_plan_the_tie_goes_to_the_first_name(world: SimpleNamespace) -> None:
    found = best_plan(world.snapshot([world.node("b"), world.node("a")]), replace(ROOMY, beta=0.0))
    assert isinstance(found, FoundPlan)
    assert found.plan == world.plan(1, ("a", 0, 12))


def test_memory_forces_a_split_and_excluded_nodes_are_not_used(world: SimpleNamespace) -> None:
    nodes = [world.node(name, memory_bytes=7_000_000) for name in ("a", "b", "c")]
    found = best_plan(world.snapshot(nodes), ROOMY, exclude=frozenset({"b"}))
    assert isinstance(found, FoundPlan)
    assert found.plan.describe() == "a [0, 6) -> c [6, 12)"


def test_a_hundred_nodes_give_a_checked_plan(world: SimpleNamespace) -> None:
    nodes = [
        world.node(
            f"edge-{i:03}", memory_bytes=4_000_000, trusted=i % 3 != 0, block_time_s=0.001 + 1e-5 * (i * 37 % 100)
        )
        for i in range(100)
    ]
    snapshot = world.snapshot(nodes, links=())
    found = best_plan(snapshot, ROOMY)
    assert isinstance(found, FoundPlan)
    assert check_plan(found.plan, snapshot, ROOMY) == []
    assert len(found.plan.stages) >= 4


def test_no_plan_says_how_much_is_missing(world: SimpleNamespace) -> None:
    nodes = [world.node(name, memory_bytes=4_000_000) for name in ("a", "b", "c")]
    found = best_plan(world.snapshot(nodes), ROOMY)
    assert isinstance(found, NoPlan)
    assert found.reason.startswith("no plan: 3 nodes offer 12.0 MB, the model needs 13.2 MB (12 blocks of 1.00 MB")


def test_no_plan_says_what_trust_forbids(world: SimpleNamespace) -> None:
    strangers = [world.node(name, trusted=False) for name in ("a", "b")]
    found = best_plan(world.snapshot(strangers), ROOMY)
    assert isinstance(found, NoPlan)
    assert "none of 2 live nodes is trusted" in found.reason
    small_friend = [*strangers, world.node("c", memory_bytes=1_000_000)]
    found = best_plan(world.snapshot(small_friend), ROOMY)
    assert isinstance(found, NoPlan)
    assert "no cut fits them" in found.reason
    assert "the largest with 1.0 MB" in found.reason


def test_no_plan_without_nodes_or_model(world: SimpleNamespace) -> None:
    assert best_plan(world.snapshot([]), ROOMY) == NoPlan("no plan: no edge node is alive")
    nothing_known = best_plan(world.snapshot([world.node("a")], model=None), ROOMY)
    assert nothing_known == NoPlan("no plan: no node has reported its model yet")


def test_cost_terms_add_up_and_all_are_milliseconds(world: SimpleNamespace) -> None:
    nodes = [world.node("a"), world.node("b", trusted=False, block_time_s=0.002), world.node("c")]
    snapshot = world.snapshot(nodes)
    cost = plan_cost(world.plan(1, ("a", 0, 4), ("b", 4, 8), ("c", 8, 12)).stages, snapshot, ROOMY)
    assert cost is not None
    assert cost.stage_ms == pytest.approx((4.0, 8.0, 5.0))
    assert cost.hop_ms[1] == pytest.approx(0.2 + 2304 / 12.5e6 * 1e3)
    assert cost.latency_ms == pytest.approx(17.0 + sum(cost.hop_ms))
    share_of_largest = cost.bottleneck_ms / cost.compute_ms - 1 / 3
    assert cost.imbalance_ms == pytest.approx(share_of_largest * cost.compute_ms)
    assert cost.exposure == pytest.approx((8 + 7 + 6 + 5) / 78)
    assert cost.total_ms == pytest.approx(cost.latency_ms + 0.5 * cost.imbalance_ms + 4.0 * cost.exposure)


def test_an_unmeasured_link_takes_the_default(world: SimpleNamespace) -> None:
    nodes = [world.node("a"), world.node("b")]
    cost = plan_cost(world.plan(1, ("a", 0, 6), ("b", 6, 12)).stages, world.snapshot(nodes, links=()), ROOMY)
    assert cost is not None
    assert cost.hop_ms[1] == pytest.approx(1.0 + 2304 / 12.5e6 * 1e3)


def test_plan_with_a_dead_node_has_no_cost(world: SimpleNamespace) -> None:
    assert plan_cost(world.plan(1, ("gone", 0, 12)).stages, world.snapshot([world.node("a")]), ROOMY) is None


@given(cuts=st.sets(st.integers(1, 29)).map(sorted))
@REPEATABLE
def test_exposure_of_all_parts_is_one(cuts: list[int]) -> None:
    assert sum(exposed_share(layers, 30) for layers in ranges_from_cuts(30, cuts)) == pytest.approx(1.0)
    assert exposed_share(LayerRange(0, 1), 30) > exposed_share(LayerRange(29, 30), 30)


def test_checker_names_every_broken_rule(world: SimpleNamespace) -> None:
    nodes = [world.node("a", memory_bytes=2_000_000), world.node("b", trusted=False)]
    snapshot = world.snapshot(nodes, plan=world.plan(4, ("a", 0, 12)))
    bad = SplitPlan(
        7, 5, "other", (Stage("a", LayerRange(0, 4)), Stage("gone", LayerRange(5, 8)), Stage("b", LayerRange(8, 12)))
    )
    assert check_plan(bad, snapshot, ROOMY) == [
        "the plan follows epoch 5, the committed epoch is 4",
        "epoch 7 does not follow its parent 5",
        "the plan is for model other, the nodes serve model",
        "stage on gone starts at block 5, expected 4",
        "node a offers 2.0 MB, blocks [0, 4) need 4.6 MB",
        "node gone is not alive",
        "node b is not trusted and would hold the head, which makes the tokens",
    ]


def test_checker_keeps_shallow_blocks_off_strangers(world: SimpleNamespace) -> None:
    snapshot = world.snapshot([world.node("a"), world.node("b", trusted=False), world.node("c")])
    shallow = world.plan(1, ("a", 0, 1), ("b", 1, 6), ("c", 6, 12))
    assert len(check_stages(shallow, snapshot, ROOMY)) == 1
    assert check_stages(shallow, snapshot, replace(ROOMY, trusted_first_blocks=1)) == []
    first = world.plan(1, ("b", 0, 6), ("c", 6, 12))
    assert len(check_stages(first, snapshot, replace(ROOMY, trusted_first_blocks=0))) == 1


def test_explanation_names_stages_hops_and_terms(world: SimpleNamespace) -> None:
    nodes = [world.node("a"), world.node("b")]
    plan = world.plan(3, ("a", 0, 6), ("b", 6, 12))
    lines = explain_plan(plan, world.snapshot(nodes, links=()), ROOMY)
    assert lines[0] == "plan 3 for model: a [0, 6) -> b [6, 12)"
    assert lines[2] == "stage 1 on a (trusted): blocks [0, 6), 6.00 ms, 6.6 of 100.0 MB"
    assert lines[3] == "hop a -> b: 1.18 ms (not measured)"
    assert lines[-1].startswith("cost ")
    assert len(explain_plan(world.plan(3, ("gone", 0, 12)), world.snapshot(nodes), ROOMY)) == 1


def test_settings_refuse_negative_weights() -> None:
    with pytest.raises(ValueError, match="beta"):
        PlanSettings(beta=-1.0)
    with pytest.raises(ValueError, match="kv_tokens_reserved"):
        PlanSettings(kv_tokens_reserved=-1)
