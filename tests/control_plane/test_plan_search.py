"""The search on worlds of every kind: against all plans, against HiGHS, and what must hold for plans of any world."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from mec_platform.control_plane.split_revision import narrowing
from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCosts, plan_cost
from mec_platform.control_plane.split_revision.search import FoundPlan, NoPlan, best_plan, describe_gap
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from tests.benchmarks.plan import draw_case
from tests.control_plane.exact_plans import Programme, least_cost_of_all
from tests.control_plane.plan_worlds import Drawing, draw_settings, draw_world


def small_world(seed: int, nodes: int = 5, blocks: int = 7) -> Snapshot:
    random = Random(seed)
    drawing = Drawing(
        random.randint(2, nodes),
        random.randint(2, blocks),
        random.choice([0.5, 2.0, 3.0]),
        random.choice([0, 2]),
        features=seed % 4 > 0,
    )
    return draw_world(seed, drawing)


def plan_or_none(snapshot: Snapshot, settings: PlanSettings) -> FoundPlan | None:
    found = best_plan(snapshot, settings)
    return None if isinstance(found, NoPlan) else found


@pytest.mark.parametrize("seed", range(60))
def test_finds_the_best_of_all_plans(seed: int) -> None:
    snapshot, settings = small_world(seed), draw_settings(seed)
    least, found = least_cost_of_all(snapshot, settings), plan_or_none(snapshot, settings)
    assert (found is None) == (least is None)
    if found is not None and least is not None:
        assert found.cost.total_ms == pytest.approx(least, abs=1e-6)
        assert found.gap == 0


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_finds_the_best_of_all_plans_of_six_nodes_and_twelve_blocks(seed: int) -> None:
    snapshot, settings = draw_world(seed, Drawing(6, 12, 3.0, features=True)), draw_settings(seed)
    least, found = least_cost_of_all(snapshot, settings), plan_or_none(snapshot, settings)
    assert found is not None
    assert found.cost.total_ms == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_is_as_good_as_an_exact_solver(seed: int) -> None:
    snapshot, settings = draw_world(seed, Drawing(7, 12, 3.0)), PlanSettings(throughput=0.5)
    least, bound = Programme(snapshot, settings).least_cost(60.0)
    found = plan_or_none(snapshot, settings)
    assert found is not None
    assert found.cost.total_ms == pytest.approx(least, abs=1e-4)
    assert bound == pytest.approx(least, abs=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
def test_is_as_good_as_an_exact_solver_for_twelve_nodes(seed: int) -> None:
    snapshot, settings = draw_world(seed, Drawing(12, 32, 2.0 + seed % 3)), PlanSettings()
    _, bound = Programme(snapshot, settings).least_cost(120.0)
    found = plan_or_none(snapshot, settings)
    assert found is not None
    assert found.cost.total_ms <= 1.02 * bound


@pytest.mark.parametrize("sited", [False, True])
def test_a_gap_is_never_too_small(sited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left out or not looked at: no plan is better than the one found by more than its gap says."""
    if sited:
        monkeypatch.setattr(narrowing, "_PAIRED_NODES", 0)
    with_gap = 0
    for seed in range(60):
        snapshot, settings = small_world(seed), draw_settings(seed)
        least = least_cost_of_all(snapshot, settings)
        found = plan_or_none(snapshot, replace(settings, search_steps=seed % 2 * 300_000, dense_nodes=3))
        if found is None or least is None:
            continue
        assert check_stages(found.plan, snapshot, settings) == []
        assert found.cost.total_ms * (1 - found.gap) <= least + 1e-6
        with_gap += found.gap > 0
    assert with_gap > 5


@pytest.mark.parametrize("seed", range(25))
def test_another_node_makes_no_plan_worse(seed: int) -> None:
    """The best plan is no worse than the one before it is now; and no worse at all where no fair share is asked for."""
    snapshot, settings = draw_world(seed, Drawing(6, 9, 2.0)), draw_settings(seed)
    fewer = replace(snapshot, nodes=snapshot.nodes[:-1])
    before, after = plan_or_none(fewer, settings), plan_or_none(snapshot, settings)
    if before is None:
        return
    now = plan_cost(before.plan.stages, snapshot, settings)
    assert after is not None
    assert now is not None
    assert after.cost.total_ms <= now.total_ms + 1e-6
    if settings.beta == 0:
        assert after.cost.total_ms <= before.cost.total_ms + 1e-6


@pytest.mark.parametrize("seed", range(25))
def test_names_of_nodes_do_not_change_the_cost(seed: int) -> None:
    snapshot, settings = small_world(seed, 7, 9), draw_settings(seed)
    names = [node.name for node in snapshot.nodes]
    shuffled = [f"renamed-{number}" for number in range(len(names))]
    Random(seed).shuffle(shuffled)
    new = dict(zip(names, shuffled, strict=True))
    renamed = replace(
        snapshot,
        nodes=tuple(replace(node, name=new[node.name]) for node in snapshot.nodes),
        links=tuple(
            replace(link, source=new.get(link.source, link.source), target=new.get(link.target, link.target))
            for link in snapshot.links
        ),
        plan=None,
        replicas=(),
    )
    one, other = plan_or_none(replace(snapshot, plan=None, replicas=()), settings), plan_or_none(renamed, settings)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.cost.total_ms == pytest.approx(other.cost.total_ms, rel=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_a_plan_that_is_the_best_stays_when_it_is_current(seed: int) -> None:
    snapshot, settings = small_world(seed), draw_settings(seed)
    found = plan_or_none(snapshot, settings)
    if found is not None:
        again = plan_or_none(replace(snapshot, plan=found.plan), settings)
        assert again is not None
        assert again.plan == found.plan


def test_plans_for_a_thousand_nodes_over_fifty_sites() -> None:
    snapshot, settings = draw_world(1, Drawing(1000, 24, 3.0, 50)), PlanSettings()
    found = plan_or_none(snapshot, settings)
    assert found is not None
    assert check_plan(found.plan, snapshot, settings) == []
    assert 0 <= found.gap < 0.2
    assert found == best_plan(snapshot, settings)


def every_plan_keeps_all_limits(seeds: range) -> int:
    plans = 0
    for seed in seeds:
        snapshot, settings = draw_case(seed)
        found = best_plan(snapshot, settings)
        if isinstance(found, FoundPlan):
            plans += 1
            check = check_stages if found.plan is snapshot.plan else check_plan
            assert check(found.plan, snapshot, settings) == [], f"seed {seed}"
            cost = PlanCosts(snapshot, settings).cost(found.plan.stages)
            assert cost == found.cost
    return plans


def test_every_plan_keeps_all_limits() -> None:
    assert every_plan_keeps_all_limits(range(150)) > 75


@pytest.mark.thorough
def test_every_plan_of_ten_thousand_worlds_keeps_all_limits() -> None:
    assert every_plan_keeps_all_limits(range(150, 10_150)) > 5000


def test_a_gap_says_what_is_proven() -> None:
    assert describe_gap(0.0) == "proven to be the best plan"
    assert describe_gap(0.0312) == "at most 3.12% above the best plan"
