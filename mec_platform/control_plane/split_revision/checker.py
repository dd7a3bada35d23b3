"""Independent check of a plan, before every commit and in every planner test.

It shares no code with the search and the cost model, on purpose: what is said twice here is said by two, and a mistake in
one of them is found by the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage, coverage_errors


def check_plan(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> list[str]:
    """Why `plan` must not replace the snapshot's plan; empty where it may."""
    committed = 0 if snapshot.plan is None else snapshot.plan.epoch
    errors = []
    if plan.parent_epoch != committed:
        errors.append(f"the plan follows epoch {plan.parent_epoch}, the committed epoch is {committed}")
    if plan.epoch != plan.parent_epoch + 1:
        errors.append(f"epoch {plan.epoch} does not follow its parent {plan.parent_epoch}")
    return errors + check_stages(plan, snapshot, settings) + _standby_errors(plan, snapshot, settings)


def check_stages(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings, *, committed: bool = False) -> list[str]:
    """The same without epochs and standbys: model, coverage, nodes, memory, trust and links.

    A plan that is `committed` already must have room for the KV that there is; one that is to be, for what may come as well:
    so that no plan is left as soon as it has been taken.
    """
    model = snapshot.model
    if model is None:
        return ["no node has reported its model"]
    errors = []
    if plan.model != model.name:
        errors.append(f"the plan is for model {plan.model}, the nodes serve {model.name}")
    errors += coverage_errors(plan.stages, model.blocks)
    alive = {node.name: node for node in snapshot.nodes}
    for stage in plan.stages:
        node = alive.get(stage.node)
        if node is None:
            errors.append(f"node {stage.node} is not alive")
            continue
        errors += _node_errors(node, snapshot)
        errors += _memory_errors(stage.layers, node, model, snapshot, settings, committed=committed)
        errors += _trust_errors(stage, node, model, settings)
    if settings.longest_transmission_ms != float("inf"):
        errors += _link_errors(plan, snapshot, settings)
    return errors


def _standby_errors(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> list[str]:
    """Standbys copy a stage of another node, are alive, fit beside what is on their node, and are trusted as that stage is."""
    model, errors = snapshot.model, []
    if model is None:
        return []
    held = {
        node.name: {block for each in plan.stages if each.node == node.name for block in each.layers}
        for node in snapshot.nodes
    }
    for standby in plan.standbys:
        if not [stage for stage in plan.stages if stage.layers == standby.layers and stage.node != standby.node]:
            errors.append(f"standby {standby.node} copies blocks {standby.layers}, which are no stage of another node")
        node = next((node for node in snapshot.nodes if node.name == standby.node), None)
        if node is None:
            errors.append(f"standby {standby.node} is not alive")
            continue
        errors += _node_errors(node, snapshot)
        errors += _trust_errors(standby, node, model, settings)
        held[node.name] |= set(standby.layers)
        errors += _memory_errors(held[node.name], node, model, snapshot, settings, committed=True)
    return errors


def _node_errors(node: NodeCapacity, snapshot: Snapshot) -> list[str]:
    errors = []
    if not node.runs_model:
        errors.append(f"node {node.name} has no artefact of the model for its target")
    for other in snapshot.replicas:
        if node.name in [stage.node for stage in (*other.stages, *other.standbys)]:
            errors.append(f"node {node.name} is in another chain of the deployment, {other.describe()}")
    return errors


def _memory_errors(
    blocks: Iterable[int],
    node: NodeCapacity,
    model: ModelShape,
    snapshot: Snapshot,
    settings: PlanSettings,
    *,
    committed: bool,
) -> list[str]:
    positions = 0
    for gateway in snapshot.gateways:
        positions += gateway.context_positions + (0 if committed else gateway.sessions * settings.kv_growth_tokens)
    if positions < settings.kv_tokens_reserved and not committed:
        positions = settings.kv_tokens_reserved
    needed = 0
    for block in blocks:
        needed += model.block_bytes + positions * model.kv_bytes_per_token_per_block
        needed += model.embed_bytes if block == 0 else 0
        needed += model.head_bytes if block == model.blocks - 1 else 0
    if needed <= node.memory_bytes:
        return []
    return [
        f"node {node.name} offers {node.memory_bytes / 1e6:.1f} MB, blocks {_words(blocks)} need {needed / 1e6:.1f} MB"
    ]


def _words(blocks: Iterable[int]) -> str:
    return str(blocks) if isinstance(blocks, LayerRange) else ", ".join(str(block) for block in sorted(blocks))


def _trust_errors(stage: Stage, node: NodeCapacity, model: ModelShape, settings: PlanSettings) -> list[str]:
    if node.trusted:
        return []
    errors = []
    if any(block == 0 or block < settings.trusted_first_blocks for block in stage.layers):
        errors.append(
            f"node {node.name} is not trusted and blocks {stage.layers} see tokens or shallow activations "
            f"(the first {settings.trusted_first_blocks} blocks need a trusted node)"
        )
    if model.blocks - 1 in stage.layers:
        errors.append(f"node {node.name} is not trusted and would hold the head, which makes the tokens")
    elif any(block >= model.blocks - settings.trusted_last_blocks for block in stage.layers):
        errors.append(
            f"node {node.name} is not trusted and blocks {stage.layers} are among the last "
            f"{settings.trusted_last_blocks}, which need a trusted node"
        )
    return errors


def _link_errors(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> Iterator[str]:
    """Links that a step keeps busy for longer than they may."""
    sessions = sum(gateway.sessions for gateway in snapshot.gateways)
    row = 0 if snapshot.model is None else snapshot.model.hidden_bytes_per_row
    crossed = [(a.node, b.node, row * max(1, sessions)) for a, b in pairwise(plan.stages)]
    for gateway in snapshot.gateways:
        size = settings.token_frame_bytes * max(1, gateway.sessions)
        crossed.append((gateway.name, plan.stages[0].node, size))
        crossed.append((plan.stages[-1].node, gateway.name, size))
    for source, target, size in crossed:
        link = _link(source, target, snapshot) or settings.default_link
        taken_ms = 1e3 * size / max(link.bytes_per_s, 1.0)
        if taken_ms > settings.longest_transmission_ms * (1 + 1e-9):
            yield (
                f"link {source} -> {target} takes {taken_ms:.2f} ms for a step, "
                f"at most {settings.longest_transmission_ms:g} ms are allowed"
            )


def _link(source: str, target: str, snapshot: Snapshot) -> LinkCapacity | None:
    for link in snapshot.links:
        if (link.source, link.target) == (source, target):
            return link
    site = {node.name: node.site for node in snapshot.nodes}
    site |= {gateway.name: gateway.site for gateway in snapshot.gateways}
    for link in snapshot.site_links:
        if (link.source, link.target) == (site.get(source), site.get(target)):
            return link
    return None
