"""Chains come and go with demand, and sessions are turned away only where no chain can be added; lifted when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.orchestrator.decisions import AddChain, Decision, DropChain, Keep, Shed, Trigger
from mec_platform.control_plane.orchestrator.state import PolicyState
from mec_platform.control_plane.policy_table import read_policy
from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.cost_profile import CostProfile, RowCost

World = SimpleNamespace
BASE = ControlSettings(PlanSettings(beta=0.0, kv_tokens_reserved=0, kv_growth_tokens=0, trusted_first_blocks=1))
TARGET = read_policy({"qos": {"tpot_ms": 40}, "replicas": {"max": 2}, "change": {"expected_nodes": 4}}, BASE)
ALONE = read_policy({"qos": {"tpot_ms": 40}}, BASE)
# Every row of a batch takes 0.25 ms of a block on top of 0.75 ms for the call: eight rows take 2.75 ms.
PROFILE = CostProfile("analytical", (1,), RowCost(0.00075, (0.00025,)), 0.0, 0.0, RowCost(0.00075, (0.00025,)), 0.0)


@pytest.fixture(scope="session")
def shop(world: World) -> Callable[..., Snapshot]:
    """Four nodes, the plan on one of them, and so many sessions."""

    def build(now_s: float, sessions: int, queued: int = 0, **changes: Any) -> Snapshot:
        nodes = [world.node(name, profile=PROFILE) for name in ("a", "b", "c", "d")]
        gateway = world.gateway(sessions=sessions, context_positions=10 * sessions, queued=queued)
        given: dict[str, Any] = {"plan": world.plan(1, ("a", 0, 12)), "gateways": (gateway,)} | changes
        found: Snapshot = world.snapshot(nodes, now_s=now_s, **given)
        return found

    return build


def run(
    shop: Callable[..., Snapshot], control: ControlSettings, demand: list[tuple[int, int]], **changes: Any
) -> list[tuple[int, Decision]]:
    """One decision a second, all of them carried out; those that change something."""
    state, made = PolicyState(), []
    for second, (sessions, queued) in enumerate(demand):
        seen = shop(float(second), sessions, queued, **changes)
        decision, state = tick(seen, state, control)
        match decision:
            case AddChain():
                assert check_stages(decision.plan, replace(seen, replicas=(shop(0, 1).plan,)), control.planning) == []
                added = replace(decision.plan, epoch=second, parent_epoch=0, chain=1)
                changes["replicas"] = (*changes.get("replicas", ()), added)
            case DropChain():
                changes["replicas"] = tuple(each for each in changes["replicas"] if each != decision.plan)
        if not isinstance(decision, Keep):
            made.append((second, decision))
    return made


def test_demand_that_lasts_adds_a_chain_on_nodes_of_its_own(shop: Any) -> None:
    ((second, decision),) = run(shop, TARGET, [(12, 0)] * 20)
    assert isinstance(decision, AddChain)
    assert (second, decision.trigger) == (3, Trigger.SLO_AT_RISK)
    assert "a" not in decision.plan.nodes
    assert decision.reason.startswith("12 sessions, 1 chain carry 9 within 40 ms per token; another one gives")


def test_demand_above_what_all_chains_carry_is_limited_too(shop: Any) -> None:
    (_, added), (_, limited) = run(shop, TARGET, [(20, 5)] * 20)
    assert isinstance(added, AddChain)
    assert isinstance(limited, Shed)
    assert limited.reason == "at most 20 sessions: 18 are allowed, the 20 that are live may end in their time"


def test_demand_that_passes_adds_none(shop: Any) -> None:
    assert run(shop, TARGET, [(20, 0), (20, 0), (5, 0)] * 5) == []


def test_a_chain_that_is_not_needed_any_more_is_dropped_after_a_while(shop: Any) -> None:
    made = run(shop, TARGET, [(12, 0)] * 6 + [(3, 0)] * 60)
    assert [type(decision) for _, decision in made] == [AddChain, DropChain]
    second, dropped = made[1]
    assert isinstance(dropped, DropChain)
    assert (second, dropped.trigger, dropped.plan.chain) == (36, Trigger.DEMAND, 1)
    assert dropped.reason == "3 sessions for 30 s; 1 chain carry them with 20% to spare"


def test_demand_that_one_chain_just_carries_keeps_both(shop: Any) -> None:
    made = run(shop, TARGET, [(12, 0)] * 6 + [(8, 0)] * 60)
    assert [type(decision) for _, decision in made] == [AddChain]


def test_without_a_target_a_queue_asks_for_a_chain(shop: Any) -> None:
    control = read_policy({"replicas": {"max": 2}, "admission": {"queue": 2}}, BASE)
    assert run(shop, control, [(4, 2)] * 8) == []
    ((_, decision),) = run(shop, control, [(4, 5)] * 8)
    assert isinstance(decision, AddChain)
    assert decision.reason.startswith("5 requests have waited for 3 s, 2 may; another one gives")


def test_as_many_chains_as_the_policy_asks_for_are_made_without_demand(shop: Any) -> None:
    control = read_policy({"replicas": {"min": 2, "max": 3}}, BASE)
    ((second, decision),) = run(shop, control, [(1, 0)] * 8)
    assert isinstance(decision, AddChain)
    assert (second, decision.reason.split(";")[0]) == (0, "the policy asks for 2 chains, there is 1")


def test_more_chains_than_the_policy_allows_are_dropped(shop: Any, world: World) -> None:
    replica = replace(world.plan(2, ("b", 0, 12)), chain=1)
    ((_, decision),) = run(shop, ALONE, [(9, 0)] * 3, replicas=(replica,))
    assert isinstance(decision, DropChain)
    assert (decision.plan, decision.trigger) == (replica, Trigger.POLICY_CHANGED)


def test_a_chain_that_stays_broken_is_dropped(shop: Any, world: World) -> None:
    replica = replace(world.plan(2, ("gone", 0, 12)), chain=1)
    made = run(shop, TARGET, [(9, 0)] * 6, replicas=(replica,), lost_nodes=frozenset({"gone"}))
    second, decision = made[0]
    assert isinstance(decision, DropChain)
    assert (second, decision.trigger) == (3, Trigger.NODE_LOST)
    assert decision.reason == "the chain gone [0, 12) cannot stay: node gone is not alive"


def test_where_no_chain_can_be_added_sessions_are_limited(shop: Any) -> None:
    ((second, decision),) = run(shop, ALONE, [(8, 6)] * 8)
    assert isinstance(decision, Shed)
    assert (second, decision.session_limit, decision.trigger) == (3, 9, Trigger.SLO_AT_RISK)
    assert decision.reason == "at most 9 sessions: 14 sessions, 1 chain carry 9 within 40 ms per token"


def test_a_limit_is_lifted_when_demand_has_been_low_for_a_while(shop: Any) -> None:
    made = run(shop, ALONE, [(8, 6)] * 5 + [(8, 0)] * 40 + [(4, 0)] * 40)
    assert [decision.session_limit for _, decision in made if isinstance(decision, Shed)] == [9, None]
    assert made[1][0] == 75
    assert made[1][1].reason == "4 sessions; the limit of 9 is not needed any more"


def test_the_sessions_that_a_policy_admits_are_a_limit_from_the_start(shop: Any) -> None:
    control = read_policy({"admission": {"max_sessions": 5}}, BASE)
    made = run(shop, control, [(3, 0), (4, 0), (5, 2)])
    assert [(second, decision.session_limit) for second, decision in made if isinstance(decision, Shed)] == [(0, 5)]
    assert made[0][1].reason == "at most 5 sessions: the policy admits no more"


@given(demand=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 10)), min_size=5, max_size=40))
@settings(derandomize=True, max_examples=12)
def test_a_limit_is_never_below_the_sessions_that_are_live(shop: Any, demand: list[tuple[int, int]]) -> None:
    for second, decision in run(shop, ALONE, demand):
        if isinstance(decision, Shed) and decision.session_limit is not None:
            assert decision.session_limit >= max(demand[second][0], 1)
