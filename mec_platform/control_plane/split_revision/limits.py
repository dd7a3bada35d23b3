"""Which plans keep the limits of a snapshot, as the search sees it, and why none does, in words."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from mec_platform.control_plane.split_revision.cost_model import PlanCosts, kv_positions, stage_memory_bytes
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import Stage


def keeps_limits(stages: tuple[Stage, ...], costs: PlanCosts, model: ModelShape) -> bool:
    """Whether stages that cover the model keep the limits of memory, trust and links."""
    settings, positions = costs.settings, kv_positions(costs.snapshot, costs.settings)
    for stage in stages:
        node = costs.nodes.get(stage.node)
        if node is None or not costs.is_usable(node):
            return False
        if stage_memory_bytes(stage.layers, model, settings, positions) > node.memory_bytes:
            return False
        shallow = stage.layers.start < max(settings.trusted_first_blocks, 1)
        deep = stage.layers.stop > model.blocks - max(settings.trusted_last_blocks, 1)
        if not node.trusted and (shallow or deep):
            return False
    hops = [costs.between(a.node, b.node) for a, b in pairwise(stages)]
    ends = [costs.entry(stages[0].node), costs.exit(stages[-1].node)]
    return all(hop.measured_busy_ms <= settings.longest_transmission_ms for hop in (*hops, *ends))


def why_none_is_usable(snapshot: Snapshot, exclude: frozenset[str]) -> str:
    """Where no live node may hold a stage."""
    taken = {name for plan in snapshot.replicas for name in plan.members}
    counts = {
        "have no artefact of the model for their target": sum(not node.runs_model for node in snapshot.nodes),
        "are in another chain of the deployment": sum(node.name in taken for node in snapshot.nodes),
        "are excluded": sum(node.name in exclude for node in snapshot.nodes),
    }
    why = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"no plan: none of {len(snapshot.nodes)} live nodes may be used: {why}"


def why_nothing_fits(costs: PlanCosts, model: ModelShape, nodes: tuple[NodeCapacity, ...]) -> str:
    """Where these nodes may, and no plan keeps all limits."""
    settings, positions = costs.settings, kv_positions(costs.snapshot, costs.settings)
    needed = stage_memory_bytes(LayerRange(0, model.blocks), model, settings, positions)
    offered = sum(node.memory_bytes for node in nodes)
    offer = "1 node offers" if len(nodes) == 1 else f"{len(nodes)} nodes offer"
    room = f"{offer} {offered / 1e6:.1f} MB, the model needs {needed / 1e6:.1f} MB"
    detail = (
        f"{model.blocks} blocks of {model.block_bytes / 1e6:.2f} MB, embedding {model.embed_bytes / 1e6:.1f} MB, "
        f"head {model.head_bytes / 1e6:.1f} MB, KV for {positions} positions"
    )
    trusted = [node for node in nodes if node.trusted]
    if not trusted:
        return f"no plan: none of {len(nodes)} live nodes is trusted, and the first and the last stage see tokens"
    if offered < needed:
        return f"no plan: {room} ({detail})"
    shallow = LayerRange(0, min(max(settings.trusted_first_blocks, 1), model.blocks))
    deep = LayerRange(max(model.blocks - max(settings.trusted_last_blocks, 1), 0), model.blocks)
    largest = max(node.memory_bytes for node in trusted)
    links = ""
    if settings.longest_transmission_ms < inf:
        links = f", and links that take more than {settings.longest_transmission_ms:g} ms for a step are not used"
    return (
        f"no plan: {room} ({detail}), but no cut fits them: embedding and blocks {shallow}, and the head and blocks {deep}, "
        f"must be on trusted nodes, of which there are {len(trusted)}, the largest with {largest / 1e6:.1f} MB{links}"
    )
