"""Independent check of a plan, before every commit and in every planner test. It shares no code with the search."""

from __future__ import annotations

from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import NodeCapacity, Snapshot
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
    return errors + check_stages(plan, snapshot, settings)


def check_stages(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings) -> list[str]:
    """The same for a plan that is committed already: model, coverage, liveness, memory and trust, without epochs."""
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
        else:
            errors += _memory_errors(stage, node, model, settings) + _trust_errors(stage, node, model, settings)
    return errors


def _memory_errors(stage: Stage, node: NodeCapacity, model: ModelShape, settings: PlanSettings) -> list[str]:
    needed = 0
    for block in stage.layers:
        needed += model.block_bytes + settings.kv_tokens_reserved * model.kv_bytes_per_token_per_block
        needed += model.embed_bytes if block == 0 else 0
        needed += model.head_bytes if block == model.blocks - 1 else 0
    if needed <= node.memory_bytes:
        return []
    return [
        f"node {node.name} offers {node.memory_bytes / 1e6:.1f} MB, blocks {stage.layers} need {needed / 1e6:.1f} MB"
    ]


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
            f"node {node.name} is not trusted and blocks {stage.layers} are near the tokens "
            f"(the last {settings.trusted_last_blocks} blocks need a trusted node)"
        )
    return errors
