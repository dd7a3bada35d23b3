"""Whom the policy does not trust with what a plan gives them. Pure; `split_revision.checker` says it in words, and apart."""

from __future__ import annotations

from collections.abc import Iterable

from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan


def exposed_nodes(plan: SplitPlan, seen: Snapshot, settings: PlanSettings) -> frozenset[str]:
    """Nodes that are not trusted and hold blocks of `plan` that need trust, or copies of their KV: they see tokens, or what
    gives them away.

    Of nodes that are not there nothing is said.
    """
    if seen.model is None:
        return frozenset()
    last = seen.model.blocks - max(1, settings.trusted_last_blocks)
    first = max(1, settings.trusted_first_blocks)
    untrusted = {node.name for node in seen.nodes if not node.trusted}
    return frozenset(
        stage.node
        for stage in (*plan.stages, *plan.standbys)
        if stage.node in untrusted and (stage.layers.start < first or stage.layers.stop > last)
    )


def not_trusted(nodes: Iterable[str]) -> str:
    """For people: why a plan must not come into force, or must not be used any more."""
    return f"{', '.join(sorted(nodes))} would hold blocks that need trust, and is not trusted"
