"""Who stands by for whom: limits that always hold, and preferences."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.split_revision.standbys import choose_standbys
from mec_platform.control_plane.trust import exposed_nodes
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import Stage, kv_holders
from tests.control_plane.plan_worlds import Drawing, draw_settings, draw_world

SETTINGS = PlanSettings()
FRONT, BACK = LayerRange(0, 6), LayerRange(6, 12)


@given(seed=st.integers(0, 10_000), copies=st.integers(1, 3), gone=st.integers(0, 5))
@settings(max_examples=150)
def test_a_choice_passes_the_checker_and_keeps_what_can_stay(seed: int, copies: int, gone: int) -> None:
    world, limits = draw_world(seed, Drawing(nodes=6, blocks=12, features=True)), draw_settings(seed)
    found = best_plan(replace(world, plan=None), limits)
    if not isinstance(found, FoundPlan):
        return
    plan = replace(found.plan, epoch=1, parent_epoch=0)
    seen = replace(world, plan=plan)
    first = choose_standbys(plan, seen, limits, copies)
    assert first.kept == ()
    following = replace(plan, epoch=2, parent_epoch=1, standbys=first.wanted)
    assert check_plan(following, seen, limits) == []
    assert not exposed_nodes(following, seen, limits)
    assert all(sum(each.layers == stage.layers for each in first.wanted) <= copies for stage in plan.stages)
    again = choose_standbys(following, replace(seen, plan=following), limits, copies)
    assert set(again.kept) == set(first.wanted)  # nothing that was copied is copied again
    fewer = replace(seen, plan=following, nodes=tuple(node for i, node in enumerate(seen.nodes) if i != gone))
    left = choose_standbys(following, fewer, limits, copies)
    assert set(left.kept) == {each for each in first.wanted if fewer.node(each.node) is not None}
    protected = {each.layers for each in first.wanted}
    for stage in plan.stages:
        whole = len(kv_holders(following, {stage.node})) == len(plan.stages)
        assert whole == (stage.layers in protected)


def test_spare_nodes_stand_by_first_and_the_best_linked_one_of_them(world: SimpleNamespace) -> None:
    names = ["a", "b", "c", "d", "gateway"]
    plan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    seen = world.snapshot(
        [world.node(name) for name in "abcd"], plan=plan, links=world.links(names, a__c=1e6, b__d=1e6)
    )
    assert choose_standbys(plan, seen, SETTINGS, 1).wanted == (Stage("d", FRONT), Stage("c", BACK))
    assert choose_standbys(plan, seen, SETTINGS, 0).wanted == ()


def test_what_fails_together_with_a_stage_stands_by_for_it_last(world: SimpleNamespace) -> None:
    plan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    nodes = [world.node("a"), world.node("b"), replace(world.node("c"), group="rack"), world.node("d")]
    nodes[0] = replace(nodes[0], group="rack")
    seen = world.snapshot(nodes, plan=plan)
    assert choose_standbys(plan, seen, SETTINGS, 1).wanted[0] == Stage("d", FRONT)


def test_a_link_that_cannot_carry_the_kv_of_the_tokens_carries_no_copies(world: SimpleNamespace) -> None:
    plan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    slow = world.links(["a", "b", "gateway"], a__b=1.0)
    seen = world.snapshot([world.node("a"), world.node("b")], plan=plan, links=slow)
    assert sum(gateway.tokens_per_s for gateway in seen.gateways) > 0
    assert choose_standbys(plan, seen, SETTINGS, 1).wanted == (Stage("a", BACK),)


@pytest.mark.parametrize("trusted", [True, False])
def test_blocks_that_need_trust_are_copied_to_trusted_nodes_only(world: SimpleNamespace, trusted: bool) -> None:
    plan = world.plan(1, ("a", 0, 6), ("b", 6, 12))
    nodes = [world.node("a"), world.node("b", memory_bytes=0), world.node("c", trusted=trusted)]
    chosen = choose_standbys(plan, world.snapshot(nodes, plan=plan), SETTINGS, 1).wanted
    assert (Stage("c", FRONT) in chosen) == trusted
