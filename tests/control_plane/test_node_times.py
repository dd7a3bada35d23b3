"""What nodes take at the load at hand: profiles corrected by live times, and nodes without one beside them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.switch_cost import replay_ms
from mec_platform.control_plane.split_revision.explanation import explain_plan
from mec_platform.control_plane.split_revision.node_times import load_of, node_times
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.cost_profile import Batch, CostProfile, RowCost

PROFILE = CostProfile(
    source="measured",
    tile_rows=(4, 2, 1),
    block=RowCost(1e-3, (4e-3, 2e-3, 1e-3)),
    own_position_s=1e-6,
    shared_position_s=1e-7,
    head=RowCost(0.0, (4e-3, 2e-3, 1e-3)),
    rms_error=0.03,
)
SETTINGS = PlanSettings(kv_tokens_reserved=0)


def at_load(world: SimpleNamespace, nodes: list[NodeCapacity], sessions: int, positions: int) -> Snapshot:
    gateway = world.gateway(sessions=sessions, context_positions=positions)
    snapshot: Snapshot = world.snapshot(nodes, gateways=(gateway,))
    return snapshot


def test_the_load_is_a_step_of_all_sessions_of_all_gateways(world: SimpleNamespace) -> None:
    gateways = tuple(world.gateway(f"g{n}", sessions=n, context_positions=100 * n) for n in (1, 3))
    assert load_of(world.snapshot([world.node("a")], gateways=gateways)) == Batch(4, own_positions=400)


def test_an_idle_edge_is_planned_for_one_session(world: SimpleNamespace) -> None:
    assert load_of(at_load(world, [world.node("a")], 0, 0)) == Batch(1, own_positions=1)


def test_a_profile_is_asked_for_the_load_and_corrected_by_live_times(world: SimpleNamespace) -> None:
    node = world.node("a", profile=PROFILE, profile_ratio=1.12)
    times = node_times(at_load(world, [node], sessions=4, positions=2000))["a"]
    assert times.block_s == pytest.approx(1.12 * (1e-3 + 4e-3 + 2000e-6))
    assert times.head_s == pytest.approx(1.12 * 4e-3)
    assert times.source == "profile (measured, 3% rms) x 1.12 from live times"


def test_without_any_profile_times_are_the_live_ones_whatever_the_load(world: SimpleNamespace) -> None:
    times = node_times(at_load(world, [world.node("a", block_time_s=0.002)], sessions=9, positions=9000))["a"]
    assert (times.block_s, times.head_s, times.source) == (0.002, 0.001, "live times of one row")


def test_a_node_without_a_profile_grows_as_the_others_do(world: SimpleNamespace) -> None:
    nodes = [world.node("a", profile=PROFILE), world.node("b", block_time_s=0.01, head_time_s=0.02)]
    times = node_times(at_load(world, nodes, sessions=4, positions=1000))["b"]
    assert times.block_s == pytest.approx(0.01 * 6e-3 / 2.001e-3)
    assert times.head_s == pytest.approx(0.02 * 4)
    assert times.source == "live times of one row x 3.00, as nodes with a profile grow"


@given(
    sessions=st.integers(1, 30),
    more=st.integers(0, 30),
    positions=st.integers(0, 10_000),
    extra=st.integers(0, 10_000),
    ratio=st.floats(0.1, 10),
)
def test_a_larger_load_never_takes_less(
    world: SimpleNamespace, sessions: int, more: int, positions: int, extra: int, ratio: float
) -> None:
    nodes = [world.node("a", profile=PROFILE, profile_ratio=ratio), world.node("b")]
    small = node_times(at_load(world, nodes, sessions, positions))
    large = node_times(at_load(world, nodes, sessions + more, positions + extra))
    for name in ("a", "b"):
        assert 0 < small[name].block_s <= large[name].block_s
        assert 0 < small[name].head_s <= large[name].head_s


def test_profiles_make_the_best_plan_depend_on_the_load(world: SimpleNamespace) -> None:
    """One node is quicker for one row, the other for many: planning from one row's time would never see the second."""
    lone = replace(PROFILE, block=RowCost(0.0, (8e-3, 4e-3, 1e-3)), own_position_s=0.0)
    many = replace(PROFILE, block=RowCost(1.5e-3, (1e-3, 5e-4, 2.5e-4)), own_position_s=0.0)
    nodes = [world.node("lone", profile=lone), world.node("many", profile=many)]
    chosen = {}
    for sessions in (1, 8):
        found = best_plan(at_load(world, nodes, sessions, 8), PlanSettings(kv_tokens_reserved=0, beta=0.0))
        assert isinstance(found, FoundPlan)
        chosen[sessions] = found.plan.nodes
    assert chosen == {1: ("lone",), 8: ("many",)}


def test_an_explanation_names_the_source_of_every_time(world: SimpleNamespace) -> None:
    nodes = [world.node("a", profile=replace(PROFILE, source="analytical"), profile_ratio=0.5), world.node("b")]
    plan = world.plan(3, ("a", 0, 6), ("b", 6, 12))
    lines = explain_plan(plan, at_load(world, nodes, sessions=2, positions=100), SETTINGS)
    load = "2 rows over 100 KV positions"
    assert f"times of a for {load}: block 1.550 ms, profile (analytical, 3% rms) x 0.50 from live times" in lines
    assert f"times of b for {load}: block 1.549 ms, live times of one row x 1.55, as nodes with a profile grow" in lines


def test_a_replay_costs_what_the_profile_says_of_prompts(world: SimpleNamespace) -> None:
    plan = world.plan(2, ("a", 0, 12))
    live = at_load(world, [world.node("a")], sessions=2, positions=512)
    assert replay_ms(plan, live, PolicySettings()) == pytest.approx(12 * 512 * 0.1)
    profiled = at_load(world, [world.node("a", profile=PROFILE, profile_ratio=2.0)], sessions=2, positions=512)
    chunk_ms = 1 + 64 * 4 + 256 * 257 / 2 * 1e-4
    assert replay_ms(plan, profiled, PolicySettings()) == pytest.approx(12 * 2 * 2.0 * chunk_ms)
