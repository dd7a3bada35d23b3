"""Adaptive Orchestrator: what triggers a change, what holds it back, and how it is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.orchestrator.decisions import (
    Decision,
    Keep,
    PlanOption,
    PlanOptions,
    Reconfigure,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.policy import PolicyState, decide
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.switch_cost import (
    choose_transfer_mode,
    replay_ms,
    switch_cost,
    transfer_ms,
)
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage, kv_moves

SETTINGS = PolicySettings()
HASTY = replace(SETTINGS, steady_s=0.0)
World = SimpleNamespace


@pytest.fixture(scope="session")
def plan(world: World) -> SplitPlan:
    found: SplitPlan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    return found


@pytest.fixture(scope="session")
def other(world: World) -> SplitPlan:
    found: SplitPlan = world.plan(2, ("a", 0, 4), ("c", 4, 12))
    return found


@pytest.fixture(scope="session")
def view(world: World, plan: SplitPlan) -> Callable[..., Snapshot]:
    """A snapshot of three equal nodes under `plan` at a time; keywords change it."""

    def build(now_s: float, **changes: Any) -> Snapshot:
        names = changes.pop("names", ("a", "b", "c"))
        found: Snapshot = world.snapshot(
            [world.node(name) for name in names], now_s=now_s, **({"plan": plan} | changes)
        )
        return found

    return build


def options(best: SplitPlan, best_ms: float, current: SplitPlan | None = None, current_ms: float = 0.0) -> PlanOptions:
    now = None if current is None else PlanOption(current.stages, current_ms, current_ms - 1)
    return PlanOptions(PlanOption(best.stages, best_ms, best_ms - 1), "", now)


def settled(view: Callable[..., Snapshot], plan: SplitPlan, now_s: float = 0.0, **changes: Any) -> PolicyState:
    """Policy state after it has seen `plan` committed in an undisturbed world."""
    decision, state = decide(view(now_s, plan=plan, **changes), PolicyState(), SETTINGS, options(plan, 10, plan, 10))
    assert isinstance(decision, Keep)
    return state


def test_waits_for_a_model_for_nodes_and_for_room(world: World, plan: SplitPlan) -> None:
    patient = replace(SETTINGS, expected_nodes=2)
    empty = world.snapshot([], model=None)
    one = world.snapshot([world.node("a")])
    two = world.snapshot([world.node("a"), world.node("b")])
    full = PlanOptions(None, "no plan: 2 nodes offer 4.0 MB, the model needs 13.0 MB", None)
    assert decide(empty, PolicyState(), patient, full)[0] == Wait("no edge node has reported a model yet")
    assert decide(one, PolicyState(), patient, options(plan, 9))[0] == Wait("1 of 2 expected edge nodes are here (a)")
    assert decide(two, PolicyState(), patient, full)[0] == Wait(full.no_plan_reason)


def test_makes_the_first_plan(world: World, plan: SplitPlan) -> None:
    decision, _ = decide(world.snapshot([world.node("a"), world.node("b")]), PolicyState(), SETTINGS, options(plan, 9))
    assert isinstance(decision, Reconfigure)
    assert (decision.kind, decision.trigger, decision.plan) == (PlanChange.INITIAL, Trigger.INITIAL, plan)
    assert decision.reason == "first plan, on 2 nodes: 8.0 ms per token"
    assert decision.current_cost_ms is None


def test_keeps_a_plan_that_nothing_beats(view: Any, plan: SplitPlan) -> None:
    decision, _ = decide(view(0.0), PolicyState(), SETTINGS, options(plan, 10, plan, 10))
    assert decision == Keep(plan, "no other plan beats this one (9.0 ms per token)", 10)


def test_a_lost_node_is_replaced_at_once_even_in_the_cooldown(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    state = replace(settled(view, plan), changes_s=(0.5,))
    gone = view(1.0, names=("a", "c"), lost_nodes=frozenset({"b"}))
    decision, _ = decide(gone, state, SETTINGS, options(other, 12))
    assert isinstance(decision, Reconfigure)
    assert (decision.trigger, decision.plan.epoch, decision.plan.parent_epoch) == (Trigger.NODE_LOST, 2, 1)
    assert decision.reason == "node b is lost (plan 1: a [0, 6) -> b [6, 12)); re-split gives 11.0 ms per token"


def test_a_node_that_came_back_without_its_stage_gets_one_again_though_the_plan_stays_as_it_is(
    view: Any, plan: SplitPlan
) -> None:
    back = view(1.0, lost_nodes=frozenset({"b"}))
    decision, _ = decide(back, settled(view, plan), SETTINGS, options(plan, 10, plan, 10))
    assert isinstance(decision, Reconfigure)
    assert (decision.trigger, decision.kind) == (Trigger.NODE_LOST, PlanChange.RELOAD)
    assert (decision.plan.epoch, decision.plan.stages) == (2, plan.stages)
    assert decision.reason.startswith("node b was started again and holds no stage (plan 1: ")
    assert choose_transfer_mode(decision.plan, back, SETTINGS).mode == "replay"  # its KV is gone too
    one_gone = view(1.0, names=("b", "c"), lost_nodes=frozenset({"a", "b"}))
    decision, _ = decide(one_gone, settled(view, plan), SETTINGS, options(plan, 10))
    assert decision.reason.startswith("node a is lost, node b was started again and holds no stage (plan 1: ")


def test_waits_when_a_node_is_lost_and_nothing_fits(view: Any, plan: SplitPlan) -> None:
    gone = view(1.0, names=("a",), lost_nodes=frozenset({"b"}))
    decision, _ = decide(gone, settled(view, plan), SETTINGS, PlanOptions(None, "no plan: too little room", None))
    assert isinstance(decision, Wait)
    assert decision.reason.endswith("; no plan: too little room")


def test_a_plan_that_breaks_a_limit_is_replaced_at_once(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    broken = replace(options(other, 12, plan, 10), current_errors=("node b is not trusted",))
    decision, _ = decide(view(1.0), replace(settled(view, plan), changes_s=(0.5,)), SETTINGS, broken)
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.PLAN_BROKEN
    assert "plan 1 breaks a limit: node b is not trusted" in decision.reason


def test_a_plan_for_another_model_is_an_initial_one(view: Any, world: World, plan: SplitPlan) -> None:
    other_model = replace(options(plan, 9, plan, 9), current_errors=("the plan is for model model",))
    decision, _ = decide(view(1.0, model=world.model(name="new")), settled(view, plan), SETTINGS, other_model)
    assert isinstance(decision, Reconfigure)
    assert (decision.kind, decision.plan.model, decision.plan.epoch) == (PlanChange.INITIAL, "new", 2)


def test_waits_for_nodes_of_a_recorded_plan_after_a_restart(view: Any, other: SplitPlan) -> None:
    decision, _ = decide(view(1.0, names=("a", "c")), PolicyState(), SETTINGS, options(other, 12))
    assert decision == Wait("b of plan 1 did not report yet since the platform started")


def test_says_which_link_fell_and_what_the_change_saves(
    view: Any, world: World, plan: SplitPlan, other: SplitPlan
) -> None:
    state = settled(view, plan)
    slow = view(10.0, links=world.links(["a", "b", "c", "gateway"], a__b=50_000.0))
    decision, _ = decide(slow, state, SETTINGS, options(other, 9, plan, 52))
    assert isinstance(decision, Reconfigure)
    assert (decision.kind, decision.trigger) == (PlanChange.RE_SPLIT, Trigger.LINK_DEGRADED)
    assert decision.reason == (
        "link a -> b fell from 12.5 MB/s to 0.05 MB/s; re-split saves 43.0 ms per token "
        "(51.0 -> 8.0 ms; cost 52.0 -> 9.0 ms)"
    )


def test_a_link_below_the_least_useful_rate_is_named_although_it_was_slow_before(
    view: Any, world: World, plan: SplitPlan
) -> None:
    links = world.links(["a", "b", "c", "gateway"], b__gateway=200_000.0)
    decision, _ = decide(view(0.0, links=links), PolicyState(), SETTINGS, options(plan, 10, plan, 10))
    assert isinstance(decision, Keep)
    assert decision.reason.startswith("link b -> gateway carries 0.2 MB/s, below 0.25 MB/s; no other plan beats")


def test_a_slow_node_triggers_a_change_with_less_hysteresis(view: Any, world: World, plan: SplitPlan) -> None:
    moved = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    state = settled(view, plan)
    slowed = [world.node("a"), world.node("b", block_time_s=0.002), world.node("c")]
    small_gain = options(moved, 9.4, plan, 10)
    decision, _ = decide(world.snapshot(slowed, plan=plan), state, SETTINGS, small_gain)
    assert isinstance(decision, Reconfigure)
    assert (decision.kind, decision.trigger) == (PlanChange.MIGRATE, Trigger.NODE_SLOW)
    assert decision.reason.startswith("node b slowed from 1 ms to 2 ms per block; migration saves 0.6 ms per token")
    undisturbed, _ = decide(view(100.0), state, SETTINGS, small_gain)
    assert isinstance(undisturbed, Keep)
    assert "less than the 10% that count as a gain" in undisturbed.reason


def test_a_node_that_joins_is_named_once(view: Any, world: World, plan: SplitPlan, other: SplitPlan) -> None:
    state = settled(view, plan, names=("a", "b"))
    decision, weighed = decide(view(10.0), state, SETTINGS, options(other, 6, plan, 10))
    assert isinstance(decision, Reconfigure)
    assert decision.trigger is Trigger.NODE_JOINED
    assert decision.reason.startswith("c joined; re-split saves 4.0 ms")
    again, _ = decide(view(11.0), replace(weighed, attempt=None), SETTINGS, options(plan, 10, plan, 10))
    assert isinstance(again, Keep)
    assert "joined" not in again.reason


def test_keeps_plan_when_gain_is_below_switch_cost(view: Any, world: World, plan: SplitPlan, other: SplitPlan) -> None:
    state = settled(view, plan)
    crowd = view(20.0, gateways=(world.gateway(sessions=500, context_positions=400_000, tokens_per_s=30.0),))
    decision, _ = decide(crowd, state, SETTINGS, options(other, 8, plan, 10))
    assert isinstance(decision, Keep)
    assert "but the change costs" in decision.reason
    assert "wins 1800 ms in 30 s at 30 tokens/s; it must win 1.5 times its cost" in decision.reason


def test_cooldown_holds_for_a_degraded_link(view: Any, world: World, plan: SplitPlan, other: SplitPlan) -> None:
    state = replace(settled(view, plan), changes_s=(8.0,))
    slow = view(10.0, links=world.links(["a", "b", "c", "gateway"], a__b=50_000.0))
    decision, state = decide(slow, state, SETTINGS, options(other, 9, plan, 52))
    assert isinstance(decision, Keep)
    assert decision.reason.endswith("but the cooldown lasts 3.0 s more")
    decision, _ = decide(replace(slow, now_s=13.0), state, SETTINGS, options(other, 9, plan, 52))
    assert isinstance(decision, Reconfigure)


def test_an_attempt_that_failed_is_repeated_with_growing_pauses(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    state, tries = settled(view, plan), []
    for second in range(40):
        decision, state = decide(view(float(second)), state, HASTY, options(other, 5, plan, 50))
        if isinstance(decision, Reconfigure):
            tries.append(second)
        else:
            assert "the last attempt was not carried out" in decision.reason
    assert tries == [0, 2, 6, 14, 30]


def test_a_change_of_live_nodes_ends_the_pause_between_attempts(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    _, state = decide(view(0.0), settled(view, plan), HASTY, options(other, 5, plan, 50))
    decision, _ = decide(view(0.5, names=("a", "b", "c", "d")), state, HASTY, options(other, 5, plan, 50))
    assert isinstance(decision, Reconfigure)


def run_flapping(view: Any, plans: dict[str, SplitPlan], rates: list[str], gain_ms: float) -> list[float]:
    """One decision a second; the best plan is the one named by `rates`. Every decision is carried out. Change times."""
    state, current, changes = PolicyState(), plans["x"], []
    for second, name in enumerate(rates):
        best = plans[name]
        costs = (
            options(best, 50 - gain_ms, current, 50)
            if best.stages != current.stages
            else options(best, 50, current, 50)
        )
        decision, state = decide(view(float(second), plan=current), state, SETTINGS, costs)
        if isinstance(decision, Reconfigure):
            current = decision.plan
            changes.append(float(second))
    return changes


@given(rates=st.lists(st.sampled_from("xy"), min_size=5, max_size=60))
@settings(derandomize=True, max_examples=60)
def test_a_flapping_world_gives_one_change_per_cooldown_at_most(
    view: Any, plan: SplitPlan, other: SplitPlan, rates: list[str]
) -> None:
    changes = run_flapping(view, {"x": plan, "y": other}, rates, gain_ms=40)
    pauses = [later - earlier for earlier, later in pairwise(changes)]
    assert all(pause >= SETTINGS.cooldown_s for pause in pauses)
    assert len(changes) <= 4  # within a minute: the cooldown grows from 5 s to 10, 20 and 40 s


def test_a_flapping_world_gives_no_change_when_the_gain_is_small(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    assert run_flapping(view, {"x": plan, "y": other}, list("xy" * 30), gain_ms=0.2) == []


def test_switch_cost_takes_the_cheaper_of_copy_and_replay(view: Any, world: World, plan: SplitPlan) -> None:
    moved = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    copied = view(0.0)
    assert transfer_ms(kv_moves(plan, moved), copied, SETTINGS) == pytest.approx(6 * 100 * 200 / 12.5e6 * 1e3)
    assert switch_cost(moved, copied, SETTINGS).total_ms == pytest.approx(220 + 9.6)
    dead_link = view(0.0, links=world.links(["a", "b", "c", "gateway"], b__c=1.0))
    replayed = replay_ms(moved, dead_link, SETTINGS)
    assert switch_cost(moved, dead_link, SETTINGS).total_ms == pytest.approx(220 + replayed)
    lost = view(0.0, names=("a", "c"))
    assert switch_cost(moved, lost, SETTINGS).total_ms == pytest.approx(220 + replay_ms(moved, lost, SETTINGS))


def test_kv_is_copied_over_good_links_and_replayed_over_slow_ones(view: Any, world: World, plan: SplitPlan) -> None:
    moved = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    expected = {12.5e6: "pre_copy", 200e3: "pre_copy", 60e3: "replay", 1.0: "replay"}
    for rate, mode in expected.items():
        seen = view(0.0, links=world.links(["a", "b", "c", "gateway"], b__c=rate))
        choice = choose_transfer_mode(moved, seen, SETTINGS)
        assert choice.mode == mode, rate
        assert "0.12 MB of KV" in choice.reason
        assert f"at {rate / 1e6:.3g} MB/s" in choice.reason


def test_kv_that_fits_into_one_pause_is_not_copied_ahead(view: Any, world: World, plan: SplitPlan) -> None:
    moved = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    # 120 kB, a round trip and the nodes' own 1.2 ms: 2.4 or 1.9 ms
    for rate, mode in {150e6: "pre_copy", 400e6: "stop_and_copy"}.items():
        seen = view(0.0, links=world.links(["a", "b", "c", "gateway"], b__c=rate))
        choice = choose_transfer_mode(moved, seen, SETTINGS)
        assert choice.mode == mode, choice.reason
    assert "fits into one pause" in choice.reason


def test_where_a_node_is_lost_the_choice_is_a_replay_and_names_it(view: Any, world: World, plan: SplitPlan) -> None:
    moved = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    choice = choose_transfer_mode(moved, view(0.0, names=("a", "c")), SETTINGS)
    assert (choice.mode, choice.reason) == ("replay", "b is lost, and the KV of its layers with it")


def test_where_a_standby_has_the_kv_of_a_lost_node_nothing_is_replayed(
    view: Any, world: World, plan: SplitPlan
) -> None:
    protected = replace(plan, standbys=(Stage("c", plan.stages[1].layers),))
    seen = view(0.0, names=("a", "c"), plan=protected)
    taken_over, elsewhere = world.plan(2, ("a", 0, 6), ("c", 6, 12)), world.plan(2, ("a", 0, 9), ("c", 9, 12))
    assert choose_transfer_mode(taken_over, seen, SETTINGS).mode == "standby"
    assert switch_cost(taken_over, seen, SETTINGS).total_ms == pytest.approx(220)
    assert switch_cost(elsewhere, seen, SETTINGS).total_ms == pytest.approx(220 + 3 * 100 * 200 / 12.5e6 * 1e3)
    both_gone = view(0.0, names=("a",), plan=protected)
    assert choose_transfer_mode(world.plan(2, ("a", 0, 12)), both_gone, SETTINGS).mode == "replay"


def test_a_plan_gets_its_standbys_once_it_is_in_force_and_loses_no_calm_for_it(
    view: Any, plan: SplitPlan, other: SplitPlan
) -> None:
    wanted = (Stage("c", plan.stages[1].layers),)
    state = replace(settled(view, plan), changes_s=(0.5,), known_nodes=frozenset("abc"))
    choice = replace(options(plan, 10, plan, 10), standbys=wanted)
    decision, state = decide(view(1.0), state, SETTINGS, choice)
    assert isinstance(decision, Reconfigure)
    assert (decision.kind, decision.trigger) == (PlanChange.STANDBY, Trigger.STANDBY)
    assert decision.plan == replace(plan, epoch=2, parent_epoch=1, standbys=wanted)
    assert decision.reason == "c stands by for [6, 12) from now on"
    protected = view(2.0, plan=decision.plan)
    after = replace(choice, kept_standbys=wanted)
    decision, state = decide(protected, state, SETTINGS, after)
    assert isinstance(decision, Keep)
    assert state.changes_s == (0.5,)  # it counts for no cooldown
    gone = view(3.0, plan=protected.plan, names=("a", "b"), lost_nodes=frozenset({"c"}))
    decision, _ = decide(gone, state, SETTINGS, replace(choice, kept_standbys=(), standbys=()))
    assert isinstance(decision, Reconfigure)  # not because a node is lost: the chain is whole
    assert (decision.trigger, decision.plan.standbys) == (Trigger.STANDBY, ())
    assert decision.reason == "c no longer stands by for [6, 12)"


def test_a_rescue_keeps_standbys_of_stages_that_stay_and_waits_for_no_new_ones(
    view: Any, world: World, plan: SplitPlan
) -> None:
    kept, new = Stage("d", plan.stages[0].layers), Stage("c", plan.stages[1].layers)
    protected = replace(plan, standbys=(kept,))
    state = settled(view, plan, names=("a", "b", "c", "d"))
    gone = view(1.0, plan=protected, names=("a", "c", "d"), lost_nodes=frozenset({"b"}))
    rescue = world.plan(2, ("a", 0, 6), ("c", 6, 12))
    choice = replace(options(rescue, 12), kept_standbys=(kept,), standbys=(kept, new))
    decision, _ = decide(gone, state, SETTINGS, choice)
    assert isinstance(decision, Reconfigure)
    assert (decision.trigger, decision.plan.stages) == (Trigger.NODE_LOST, rescue.stages)
    assert decision.plan.standbys == (kept,)


def test_where_no_kv_moves_the_choice_says_so(view: Any, plan: SplitPlan) -> None:
    again = replace(plan, epoch=9)
    assert "no layer changes its node" in choose_transfer_mode(again, view(0.0), SETTINGS).reason


def test_every_decision_carries_a_reason(view: Any, plan: SplitPlan, other: SplitPlan) -> None:
    seen: list[Decision] = []
    state = PolicyState()
    for second, best in enumerate([plan, other, other, plan]):
        decision, state = decide(view(float(second)), state, SETTINGS, options(best, 9, plan, 10))
        seen.append(decision)
    assert all(decision.reason for decision in seen)
