"""A split plan: which edge node holds which layer range, under which epoch; and what changes between two plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mec_platform.domain.layers import LayerRange


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer range placed on an edge node (by name)."""

    node: str
    layers: LayerRange


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Ordered stages that cover every block of `model` once, for one chain of its deployment.

    `chain` numbers the chains of a deployment, which run side by side on disjoint nodes. Epochs are counted for all of
    them together: whatever a deployment does next has an epoch that none of its nodes has met. `parent_epoch` is that
    of the plan that the chain had before, 0 where it had none. A plan without stages takes its chain away.
    """

    epoch: int
    parent_epoch: int
    model: str
    stages: tuple[Stage, ...]
    chain: int = 0

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes in chain order."""
        return tuple(stage.node for stage in self.stages)

    def describe(self) -> str:
        """For people: `edge-1 [0, 10) -> edge-2 [10, 30)`."""
        return " -> ".join(f"{stage.node} {stage.layers}" for stage in self.stages) or "no nodes"


@dataclass(frozen=True, slots=True)
class KvMove:
    """KV of `layers` that must travel from one node to another when a plan is replaced."""

    source: str
    target: str
    layers: LayerRange


class PlanChange(StrEnum):
    """What replacing one plan by another amounts to."""

    INITIAL = "initial"
    KEEP = "keep"
    RELOAD = "reload"
    """The same plan once more, for a node that has lost its part of it."""

    MIGRATE = "migrate"
    RE_SPLIT = "re_split"
    ADD_CHAIN = "add_chain"
    DROP_CHAIN = "drop_chain"


def kv_moves(old: SplitPlan, new: SplitPlan) -> tuple[KvMove, ...]:
    """Every move of KV between nodes that takes sessions from `old` to `new`; layers that stay on their node do not move."""
    moves = []
    for source in old.stages:
        for target in new.stages:
            shared = source.layers.intersection(target.layers)
            if shared is not None and source.node != target.node:
                moves.append(KvMove(source.node, target.node, shared))
    return tuple(moves)


def plan_change(old: SplitPlan | None, new: SplitPlan) -> PlanChange:
    """Names the change of a chain: same cuts on other nodes is a migration, other cuts are a re-split."""
    if old is None:
        return PlanChange.INITIAL
    if not new.stages:
        return PlanChange.DROP_CHAIN
    if old.stages == new.stages:
        return PlanChange.KEEP
    same_cuts = [stage.layers for stage in old.stages] == [stage.layers for stage in new.stages]
    return PlanChange.MIGRATE if same_cuts else PlanChange.RE_SPLIT


def coverage_errors(stages: Sequence[Stage], blocks: int) -> list[str]:
    """Why `stages` do not cover blocks `[0, blocks)` exactly once in order, each node once; empty where they do."""
    if not stages:
        return ["a plan needs at least one stage"]
    errors = []
    expected = 0
    for stage in stages:
        if stage.layers.start != expected:
            errors.append(f"stage on {stage.node} starts at block {stage.layers.start}, expected {expected}")
        expected = stage.layers.stop
    if expected != blocks:
        errors.append(f"the last stage ends at block {expected}, the model has {blocks}")
    names = [stage.node for stage in stages]
    errors += [f"node {name} holds more than one stage" for name in sorted({n for n in names if names.count(n) > 1})]
    return errors
