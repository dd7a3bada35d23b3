"""Split Revision: how far plans are from the best, by brute force and by HiGHS; how long it takes; whether limits are kept.

All worlds are drawn from seeds, so that figures of two runs are about the same problems. Times are of one process on one
core, of whole searches from a snapshot; the first search of a process is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from statistics import fmean, median, quantiles
from typing import Any

from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.split_revision.checker import check_plan, check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCosts
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.capacity import Snapshot
from tests.benchmarks.machine import at_most, machine
from tests.control_plane.exact_plans import Programme, least_cost_of_all
from tests.control_plane.plan_worlds import Drawing, draw_settings, draw_world

_HIGHS_S = 60.0
_LONG_SEARCH_STEPS = 300_000_000


def run(quick: bool) -> dict[str, Any]:
    """Metrics and criteria; gaps are shares, times milliseconds."""
    metrics: dict[str, float] = {}
    metrics |= _gaps("brute_force", _against_brute_force(60 if quick else 400, 0 if quick else 3))
    metrics |= _gaps("highs_12x32", _against_highs(1 if quick else 8))
    metrics |= _times("80x64", [draw_world(seed, Drawing(64, 80, 3)) for seed in range(10 if quick else 40)])
    metrics |= _times(
        "1000_over_50_sites", [draw_world(seed, Drawing(1000, 80, 3, 50)) for seed in range(3 if quick else 15)]
    )
    metrics |= _long_search(2 if quick else 10)
    metrics["tick_unchanged_ms"] = _unchanged_tick_ms()
    metrics["plan_cost_us"] = _plan_cost_us()
    metrics |= _checked(300 if quick else 10_000)
    criteria = [
        at_most("gap to brute force, 6 nodes and 12 blocks", metrics["gap_brute_force_max"], 1e-9),
        at_most("gap to HiGHS, 12 nodes and 32 blocks", metrics["gap_highs_12x32_max"], 0.02),
        at_most("80 blocks over 64 nodes, median ms", metrics["plan_80x64_median_ms"], 20.0),
        at_most("1,000 nodes over 50 sites, median ms", metrics["plan_1000_over_50_sites_median_ms"], 500.0),
        at_most("tick of an unchanged world, ms", metrics["tick_unchanged_ms"], 2.0),
        at_most("plans that fail the checker", metrics["checker_violations"], 0.0),
        at_most("plans that break trust", metrics["trust_violations"], 0.0),
    ]
    return {"bench": "plan", "machine": machine(), "metrics": metrics, "criteria": criteria}


def _against_brute_force(small: int, largest: int) -> list[float]:
    gaps = []
    for seed in range(small + largest):
        random = Random(seed)
        nodes, blocks = (6, 12) if seed >= small else (random.randint(2, 5), random.randint(2, 8))
        snapshot = draw_world(seed, Drawing(nodes, blocks, random.choice([0.5, 2.0, 3.0]), features=seed % 2 == 0))
        settings = draw_settings(seed)
        least, found = least_cost_of_all(snapshot, settings), best_plan(snapshot, settings)
        if (least is None) != (not isinstance(found, FoundPlan)):
            gaps.append(1.0)
        elif least is not None and isinstance(found, FoundPlan):
            gaps.append(max(0.0, found.cost.total_ms - least) / max(abs(least), 1e-9))
    return gaps


def _against_highs(count: int) -> list[float]:
    """Against the bound that HiGHS gives, which is the best plan's cost where it ends in time."""
    gaps = []
    for seed in range(count):
        snapshot, settings = draw_world(seed, Drawing(12, 32, 2.0 + seed % 3)), PlanSettings()
        _, bound = Programme(snapshot, settings).least_cost(_HIGHS_S)
        found = best_plan(snapshot, settings)
        gaps.append(max(0.0, found.cost.total_ms - bound) / bound if isinstance(found, FoundPlan) else 1.0)
    return gaps


def _gaps(name: str, gaps: Sequence[float]) -> dict[str, float]:
    return {f"gap_{name}_max": max(gaps), f"gap_{name}_mean": fmean(gaps), f"gap_{name}_worlds": len(gaps)}


def _times(name: str, worlds: Sequence[Snapshot]) -> dict[str, float]:
    settings = PlanSettings()
    best_plan(worlds[0], settings)
    times, gaps = [], []
    for world in worlds:
        start = time.perf_counter()
        found = best_plan(world, settings)
        times.append((time.perf_counter() - start) * 1e3)
        if isinstance(found, FoundPlan):
            gaps.append(found.gap)
    return {
        f"plan_{name}_median_ms": median(times),
        f"plan_{name}_p99_ms": quantiles(times, n=100, method="inclusive")[98],
        f"plan_{name}_known_gap_mean": fmean(gaps),
        f"plan_{name}_known_gap_max": max(gaps),
    }


def _long_search(count: int) -> dict[str, float]:
    """What a search of 80 blocks over 64 nodes leaves against one that may take as long as it needs, mostly to a proof."""
    losses, proven = [], 0
    for seed in range(count):
        world = draw_world(seed, Drawing(64, 80, 3))
        found = best_plan(world, PlanSettings())
        long = best_plan(world, PlanSettings(search_steps=_LONG_SEARCH_STEPS))
        if isinstance(found, FoundPlan) and isinstance(long, FoundPlan):
            losses.append(found.cost.total_ms / long.cost.total_ms - 1)
            proven += long.gap == 0
    return {
        "loss_80x64_to_long_search_mean": fmean(losses),
        "loss_80x64_to_long_search_max": max(losses),
        "long_searches_proven_share": proven / count,
    }


def _unchanged_tick_ms() -> float:
    """A tick of 80 blocks over 64 nodes whose reports, made anew, say the same as in the tick before."""
    settings = ControlSettings()
    world = draw_world(0, Drawing(64, 80, 3))
    found = best_plan(world, settings.planning)
    assert isinstance(found, FoundPlan)
    world = replace(world, plan=found.plan)
    _, state = tick(world, PolicyState(), settings)
    times = []
    for second in range(1, 21):
        world = replace(
            world,
            now_s=float(second),
            nodes=tuple(replace(node) for node in world.nodes),
            links=tuple(replace(link) for link in world.links),
        )
        times.append(_ms(lambda now=world, before=state: tick(now, before, settings)))
    return median(times)


def _plan_cost_us() -> float:
    """One plan's cost, of many in one snapshot, as a simulation asks for it."""
    world = draw_world(0, Drawing(12, 32, 3))
    found = best_plan(world, PlanSettings())
    assert isinstance(found, FoundPlan)
    costs = PlanCosts(world, PlanSettings())
    costs.cost(found.plan.stages)
    return _ms(lambda: [costs.cost(found.plan.stages) for _ in range(1000)])


def _checked(count: int) -> dict[str, float]:
    """Plans for worlds of every kind, judged by the checker, which shares no code with the search."""
    violations = trust = plans = 0
    for seed in range(count):
        snapshot, settings = draw_case(seed)
        found = best_plan(snapshot, settings)
        if isinstance(found, FoundPlan):
            plans += 1
            kept = found.plan is snapshot.plan
            errors = (check_stages if kept else check_plan)(found.plan, snapshot, settings)
            violations += bool(errors)
            trust += any("not trusted" in error for error in errors)
    return {"checked_plans": plans, "checker_violations": violations, "trust_violations": trust}


def draw_case(seed: int) -> tuple[Snapshot, PlanSettings]:
    """A world of up to ten nodes, now and then of more, with every feature."""
    random = Random(seed)
    nodes = random.randint(1, 10) if seed % 50 else random.randint(65, 80)
    drawing = Drawing(nodes, random.randint(1, 16), random.choice([0.5, 1.0, 2.0, 3.0]), random.choice([0, 3]), True)
    return draw_world(seed, drawing), replace(draw_settings(seed), search_steps=1_000_000)


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3
