"""A split plan: which edge node holds which layer range, under which epoch; and what changes between two plans."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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

    A standby is a node that keeps copies of the KV of one stage, of which it has the layers, and can take it over.
    """

    epoch: int
    parent_epoch: int
    model: str
    stages: tuple[Stage, ...]
    chain: int = 0
    standbys: tuple[Stage, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes in chain order."""
        return tuple(stage.node for stage in self.stages)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of all nodes that hold anything for the plan: those of the chain, then those that only stand by."""
        return tuple(dict.fromkeys((*self.nodes, *(standby.node for standby in self.standbys))))

    def describe(self) -> str:
        """For people: `edge-1 [0, 10) -> edge-2 [10, 30); edge-3 stands by for [0, 10)`."""
        chain = " -> ".join(f"{stage.node} {stage.layers}" for stage in self.stages) or "no nodes"
        return "; ".join([chain, *(f"{standby.node} stands by for {standby.layers}" for standby in self.standbys)])


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
    STANDBY = "standby"
    RELOAD = "reload"
    """The same plan once more, for a node that has lost its part of it."""

    MIGRATE = "migrate"
    RE_SPLIT = "re_split"
    ADD_CHAIN = "add_chain"
    DROP_CHAIN = "drop_chain"


def kv_holders(plan: SplitPlan, lost: Collection[str] = ()) -> tuple[Stage, ...]:
    """Who has the KV of each stage where some nodes are lost: its node or else a standby; left out where nobody has."""
    holders = []
    for stage in plan.stages:
        copies = (standby for standby in plan.standbys if standby.layers == stage.layers)
        holder = next((each for each in (stage, *copies) if each.node not in lost), None)
        if holder is not None:
            holders.append(holder)
    return tuple(holders)


def kept_standbys(standbys: Sequence[Stage], stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Those of `standbys` that are of use to a plan of these stages: each copies a stage of another node."""
    return tuple(
        standby
        for standby in standbys
        if any(stage.layers == standby.layers and stage.node != standby.node for stage in stages)
    )


def kv_moves(old: SplitPlan, new: SplitPlan, lost: Collection[str] = ()) -> tuple[KvMove, ...]:
    """Every move of KV between nodes that takes sessions from `old` to `new`; layers that stay on their node do not move.

    What `lost` nodes had comes from their standbys.
    """
    moves = []
    for source in kv_holders(old, lost):
        for target in new.stages:
            shared = source.layers.intersection(target.layers)
            if shared is not None and source.node != target.node:
                moves.append(KvMove(source.node, target.node, shared))
    return tuple(moves)


def plan_change(old: SplitPlan | None, new: SplitPlan) -> PlanChange:
    """Names the change of a chain: same cuts on other nodes is a migration, other cuts are a re-split.

    Where stages stay and standbys do not, it is a matter of standbys alone.
    """
    if old is None:
        return PlanChange.INITIAL
    if not new.stages:
        return PlanChange.DROP_CHAIN
    if old.stages == new.stages:
        return PlanChange.KEEP if old.standbys == new.standbys else PlanChange.STANDBY
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
