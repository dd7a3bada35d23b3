"""The stages that a node holds, by epoch: prepared ones beside the committed one, and the rules of fencing.

What it stands by for is held beside them: layers that no frame runs through here, with copies of others' KV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage


class StageError(Exception):
    """A stage that cannot be loaded or committed; the message says why."""


class StaleEpoch(StageError):
    """The epoch is not newer than what this node has committed."""


@dataclass(frozen=True, slots=True)
class LoadedStage:
    """One stage of one plan on this node. `next_node` is None on the last stage."""

    epoch: int
    layers: LayerRange
    is_first: bool
    next_node: str | None

    @property
    def is_last(self) -> bool:
        """Whether this stage runs the head and samples."""
        return self.next_node is None


@dataclass(frozen=True, slots=True)
class StandbyLayers:
    """A stage of another node that this one could take over: it has the weights and copies of the KV."""

    epoch: int
    layers: LayerRange
    is_first: bool
    is_last: bool


Held = LoadedStage | StandbyLayers


def stage_of(plan: SplitPlan, index: int, node: str, model: str, blocks: int) -> LoadedStage:
    """The stage that `node` shall hold. Raises StageError where plan, index, node and model do not fit together."""
    if plan.model != model:
        raise StageError(f"the plan is for model {plan.model}, this node has {model}")
    if not 0 <= index < len(plan.stages):
        raise StageError(f"stage {index} of a plan with {len(plan.stages)} stages")
    stage = plan.stages[index]
    if stage.node != node:
        raise StageError(f"stage {index} belongs to {stage.node}, this node is {node}")
    if stage.layers.stop > blocks:
        raise StageError(f"layers {stage.layers}, the model has {blocks} blocks")
    following = plan.stages[index + 1].node if index + 1 < len(plan.stages) else None
    return LoadedStage(plan.epoch, stage.layers, index == 0, following)


def standbys_of(plan: SplitPlan, node: str, blocks: int) -> tuple[StandbyLayers, ...]:
    """What `node` shall stand by for. Raises StageError where that is no stage of another node."""
    wanted = [standby for standby in plan.standbys if standby.node == node]
    for standby in wanted:
        if standby.layers.stop > blocks or not _is_others_stage(standby, plan.stages):
            raise StageError(f"{node} is to stand by for layers {standby.layers}, which are no stage of another node")
    return tuple(
        StandbyLayers(plan.epoch, each.layers, each.layers.start == 0, each.layers.stop == blocks) for each in wanted
    )


def _is_others_stage(standby: Stage, stages: Sequence[Stage]) -> bool:
    return any(stage.layers == standby.layers and stage.node != standby.node for stage in stages)


class StageTable:
    """Stages and standby layers by epoch. The committed epoch never goes backwards; older epochs are refused."""

    def __init__(self) -> None:
        self._stages: dict[int, LoadedStage] = {}
        self._standbys: dict[int, tuple[StandbyLayers, ...]] = {}
        self._aborted: set[int] = set()
        self.committed_epoch = 0

    @property
    def stages(self) -> tuple[LoadedStage, ...]:
        """All stages held, oldest epoch first."""
        return tuple(self._stages[epoch] for epoch in sorted(self._stages))

    @property
    def held(self) -> tuple[Held, ...]:
        """All that weights and KV are kept for, of every epoch."""
        return (*self.stages, *(each for standbys in self._standbys.values() for each in standbys))

    def get(self, epoch: int) -> LoadedStage | None:
        """The stage of an epoch, or None."""
        return self._stages.get(epoch)

    def prepare(self, *held: Held) -> None:
        """Holds what one epoch gives this node beside what is committed. Raises StaleEpoch for an epoch that is not newer."""
        epoch = held[0].epoch
        if epoch <= self.committed_epoch:
            raise StaleEpoch(f"epoch {epoch} is not newer than the committed epoch {self.committed_epoch}")
        if epoch in self._aborted:
            raise StaleEpoch(f"epoch {epoch} has been aborted; its abort overtook this")
        for each in held:
            if isinstance(each, LoadedStage):
                self._stages[epoch] = each
        self._standbys[epoch] = tuple(each for each in held if isinstance(each, StandbyLayers))

    def abort(self, epoch: int) -> None:
        """Drops a prepared stage. Raises StaleEpoch where it has been committed."""
        if epoch <= self.committed_epoch:
            raise StaleEpoch(f"epoch {epoch} has been committed and cannot be aborted")
        self._stages.pop(epoch, None)
        self._standbys.pop(epoch, None)
        self._aborted.add(epoch)

    def commit(self, epoch: int) -> None:
        """Drops all older stages. Committing again is fine. Raises StaleEpoch for an epoch older than the committed one."""
        if epoch < self.committed_epoch:
            raise StaleEpoch(f"epoch {epoch} is older than the committed epoch {self.committed_epoch}")
        self.committed_epoch = epoch
        self._stages = {held: stage for held, stage in self._stages.items() if held >= epoch}
        self._standbys = {held: standbys for held, standbys in self._standbys.items() if held >= epoch}
        self._aborted = {aborted for aborted in self._aborted if aborted > epoch}

    def forget_before(self, epoch: int) -> bool:
        """Drops prepared stages whose epoch is below `epoch`: nobody works on those any more. Whether there were any."""
        dead = self.prepared_before(epoch)
        for held in dead:
            self.abort(held)
        return bool(dead)

    def prepared_before(self, epoch: int) -> frozenset[int]:
        """Epochs below that one for which something is held that is not committed."""
        return frozenset(held for held in {*self._stages, *self._standbys} if self.committed_epoch < held < epoch)

    def holds(self, layers: LayerRange) -> bool:
        """Whether every one of these layers is needed by something that is held here."""
        return {layer for held in self.held for layer in held.layers}.issuperset(layers)

    def unused_layers(self, blocks: int) -> tuple[LayerRange, ...]:
        """Layers that nothing held here needs."""
        used = {layer for held in self.held for layer in held.layers}
        runs: list[LayerRange] = []
        for layer in range(blocks):
            if layer in used:
                continue
            if runs and runs[-1].stop == layer:
                runs[-1] = LayerRange(runs[-1].start, layer + 1)
            else:
                runs.append(LayerRange(layer, layer + 1))
        return tuple(runs)
