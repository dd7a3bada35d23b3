"""A plan in words: what every stage and hop costs and how the total comes about; and what other plans would cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.cost_model import PlanCost, PlanCosts, kv_positions, stage_memory_bytes
from mec_platform.control_plane.split_revision.limits import keeps_limits
from mec_platform.control_plane.split_revision.node_times import describe_load
from mec_platform.control_plane.split_revision.search import describe_gap
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.layers import LayerRange, even_ranges
from mec_platform.domain.split_plan import SplitPlan, Stage

# So many single nodes are named, the best first.
_SINGLE_NODES = 12
# Even splits are made of so many nodes at most.
_EVEN_PARTS = 8


def explain_plan(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings, gap: float | None = None) -> list[str]:
    """Lines for an operator: one per stage and hop, then the terms of the objective, and how good the plan is known to be."""
    costs, model = PlanCosts(snapshot, settings), snapshot.model
    cost = costs.cost(plan.stages)
    if cost is None or model is None:
        return [f"{plan.describe()}: cannot be costed, the model or a node of the plan is unknown or gone"]
    lines = [f"plan {plan.epoch} for {plan.model}: {plan.describe()}"]
    source = "gateway"
    for index, stage in enumerate(plan.stages):
        node = costs.nodes[stage.node]
        known = index == 0 or costs.links.link(source, stage.node) is not None
        lines.append(f"hop {source} -> {stage.node}: {cost.hop_ms[index]:.2f} ms{'' if known else ' (not measured)'}")
        needed = stage_memory_bytes(stage.layers, model, settings, kv_positions(snapshot, settings))
        lines.append(
            f"stage {index + 1} on {stage.node} ({'trusted' if node.trusted else 'not trusted'}): blocks {stage.layers}"
            f"{' and head' if index == len(plan.stages) - 1 else ''}, {cost.stage_ms[index]:.2f} ms, "
            f"{needed / 1e6:.1f} of {node.memory_bytes / 1e6:.1f} MB"
        )
        source = stage.node
    for name in dict.fromkeys(plan.nodes):
        lines.append(
            f"times of {name} for {describe_load(snapshot)}: block {costs.times[name].block_s * 1e3:.3f} ms, "
            f"{costs.times[name].source}"
        )
    lines.append(f"hop {source} -> gateway: {cost.hop_ms[-1]:.2f} ms")
    lines += _terms(cost, costs)
    return lines if gap is None else [*lines, describe_gap(gap)]


def _terms(cost: PlanCost, costs: PlanCosts) -> list[str]:
    settings = costs.settings
    lines = [
        f"latency {cost.latency_ms:.2f} ms per token: compute {cost.compute_ms:.2f} ms, hops {sum(cost.hop_ms):.2f} ms",
        f"imbalance {cost.imbalance_ms:.2f} ms: the busiest stage or link takes {cost.bottleneck_ms:.2f} ms of a step, a fair "
        f"share over {1 / costs.fair_share:.0f} nodes is {cost.bottleneck_ms - cost.imbalance_ms:.2f} ms",
        f"exposure {cost.exposure:.2f}: share of blocks on nodes that are not trusted, shallow blocks weigh more",
    ]
    total = f"cost {cost.total_ms:.2f} ms = {settings.alpha:g} x latency + {settings.beta:g} x imbalance "
    if settings.throughput:
        total += f"+ {settings.throughput:g} x busiest "
    total += f"+ {settings.gamma_ms:g} ms x exposure"
    if cost.affinity_ms:
        lines.append(
            f"affinity {cost.affinity_ms:.2f} ms: stages that fail together with another chain of the deployment"
        )
        total += " + affinity"
    if settings.switch_horizon_tokens:
        lines.append(
            f"switch {cost.switch_ms:.2f} ms: weights, KV and pauses of going there, over {settings.switch_horizon_tokens} "
            "tokens"
        )
        total += " + switch"
    return [*lines, total]


def explain_alternatives(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> list[str]:
    """Why not another plan: what single nodes and the best even split cost instead, or which limit keeps them out."""
    costs, model = PlanCosts(snapshot, settings), snapshot.model
    chosen = costs.cost(plan.stages)
    if chosen is None or model is None:
        return []
    blocks = LayerRange(0, model.blocks)
    usable = [node for node in snapshot.nodes if costs.is_usable(node)]
    usable.sort(key=lambda node: (costs.times[node.name].block_s, node.name))
    singles = sorted(((Stage(node.name, blocks),) for node in usable), key=lambda stages: _total(stages, costs))
    splits = []
    for parts in range(2, min(len(usable), model.blocks, _EVEN_PARTS) + 1):
        ranges = even_ranges(model.blocks, parts)
        splits.append(tuple(Stage(node.name, layers) for node, layers in zip(usable[:parts], ranges, strict=True)))
    splits.sort(key=lambda stages: (not keeps_limits(stages, costs, model), _total(stages, costs)))
    lines = [
        f"all on one node: {_compare(stages, chosen, costs)}"
        for stages in singles[:_SINGLE_NODES]
        if stages != plan.stages
    ]
    if len(singles) > _SINGLE_NODES:
        lines.append(f"all on one node: {len(singles) - _SINGLE_NODES} more nodes would cost more than these")
    lines += [f"even split over the quickest nodes: {_compare(stages, chosen, costs)}" for stages in splits[:1]]
    return lines


def _total(stages: Sequence[Stage], costs: PlanCosts) -> float:
    cost = costs.cost(stages)
    return inf if cost is None else cost.total_ms


def _compare(stages: tuple[Stage, ...], chosen: PlanCost, costs: PlanCosts) -> str:
    snapshot = costs.snapshot
    assert snapshot.model is not None  # who compares plans knows what of
    words = " -> ".join(f"{stage.node} {stage.layers}" for stage in stages)
    total = _total(stages, costs)
    errors = check_stages(SplitPlan(1, 0, snapshot.model.name, stages), snapshot, costs.settings)
    if errors:
        return f"{words} would cost {total:.2f} ms, but {errors[0]}"
    return f"{words} costs {total:.2f} ms, {total - chosen.total_ms:.2f} ms more"
