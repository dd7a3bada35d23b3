"""Who stands by for which stage of a plan: holds its weights and copies of its KV, and can take it over. Pure.

Standbys take what plans leave: a plan is never worse for them. Those that there are stay as long as they can, so that what
has been copied is not copied again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mec_platform.control_plane.split_revision.cost_model import fates, kv_positions, stage_memory_bytes
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.link_table import LinkTable
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage

LINK_SHARE = 0.25
"""Of a link that copies may take: rows of tokens go first."""


@dataclass(frozen=True, slots=True)
class StandbyChoice:
    """`kept` are those of the plan that can stay; `wanted` are these and new ones."""

    kept: tuple[Stage, ...] = ()
    wanted: tuple[Stage, ...] = ()


def choose_standbys(plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings, copies: int) -> StandbyChoice:
    """Up to `copies` standbys for every stage of a plan, on nodes that no other chain uses.

    A new one is, of those with room for the stage, trust where its blocks need it, and a link that carries the KV of the tokens
    that flow: one that does not fail together with the stage's node, that has no stage of its own, stands by for the least,
    with the fastest link.
    """
    model = snapshot.model
    if model is None or not copies:
        return StandbyChoice()
    places = _Places(plan, snapshot, settings, model)
    kept: list[Stage] = []
    for standby in plan.standbys:
        stage = next((stage for stage in plan.stages if stage.layers == standby.layers), None)
        room = sum(each.layers == standby.layers for each in kept) < copies
        if stage is not None and room and places.may_stay(stage, standby.node):
            places.take(standby)
            kept.append(standby)
    wanted = list(kept)
    for stage in plan.stages:
        for _ in range(copies - sum(standby.layers == stage.layers for standby in wanted)):
            node = places.best(stage, wanted)
            if node is None:
                break
            standby = Stage(node.name, stage.layers)
            places.take(standby)
            wanted.append(standby)
    return StandbyChoice(tuple(kept), tuple(wanted))


class _Places:
    """The nodes of a snapshot, with what stages and standbys take of their memory."""

    def __init__(self, plan: SplitPlan, snapshot: Snapshot, settings: PlanSettings, model: ModelShape) -> None:
        taken = {name for other in snapshot.replicas for name in other.members}
        self._nodes = {node.name: node for node in snapshot.nodes if node.runs_model and node.name not in taken}
        self._model = model
        self._settings = settings
        self._in_chain = frozenset(plan.nodes)
        self._lost = snapshot.lost_nodes
        self._links = LinkTable.of(snapshot)
        self._bytes_per_s = sum(gateway.tokens_per_s for gateway in snapshot.gateways) * (
            model.kv_bytes_per_token_per_block
        )
        self._positions_now = sum(gateway.context_positions for gateway in snapshot.gateways)
        self._positions = kv_positions(snapshot, settings)
        self._layers: dict[str, set[int]] = {}
        for stage in plan.stages:
            self.take(stage)

    def take(self, stage: Stage) -> None:
        """Counts layers on a node: those that it has already cost nothing more."""
        self._layers.setdefault(stage.node, set()).update(stage.layers)

    def may_stay(self, stage: Stage, name: str) -> bool:
        """Whether a standby still has what it had: growth of the KV is not counted again, nor is its link's speed."""
        return name not in self._lost and self._is_fit(stage, name, self._positions_now)

    def best(self, stage: Stage, taken: Sequence[Stage]) -> NodeCapacity | None:
        """The best new standby of a stage, None where there is none."""
        others = {standby.node for standby in taken if standby.layers == stage.layers}
        fit = [
            node
            for name, node in self._nodes.items()
            if name not in others
            and self._is_fit(stage, name, self._positions)
            and self._rate(stage.node, name) * LINK_SHARE >= self._bytes_per_s * len(stage.layers)
        ]
        return min(fit, key=lambda node: self._rank(stage, node), default=None)

    def _rank(self, stage: Stage, node: NodeCapacity) -> tuple[bool, bool, int, float, str]:
        own = self._nodes.get(stage.node)
        shares_fate = own is not None and not fates(own).isdisjoint(fates(node))
        held = len(self._layers.get(node.name, ()))
        return shares_fate, node.name in self._in_chain, held, -self._rate(stage.node, node.name), node.name

    def _rate(self, source: str, target: str) -> float:
        return (self._links.link(source, target) or self._settings.default_link).bytes_per_s

    def _is_fit(self, stage: Stage, name: str, positions: int) -> bool:
        node = self._nodes.get(name)
        if node is None or name == stage.node or (not node.trusted and self._needs_trust(stage.layers)):
            return False
        held = self._layers.get(name, set()) | set(stage.layers)
        needed = sum(stage_memory_bytes(run, self._model, self._settings, positions) for run in _runs(sorted(held)))
        return needed <= node.memory_bytes

    def _needs_trust(self, layers: LayerRange) -> bool:
        first = max(self._settings.trusted_first_blocks, 1)
        last = max(self._settings.trusted_last_blocks, 1)
        return layers.start < first or layers.stop > self._model.blocks - last


def _runs(layers: Sequence[int]) -> Iterator[LayerRange]:
    """Ascending layers as ranges."""
    start = 0
    for index in range(1, len(layers) + 1):
        if index == len(layers) or layers[index] != layers[index - 1] + 1:
            yield LayerRange(layers[start], layers[index - 1] + 1)
            start = index
