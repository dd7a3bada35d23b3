"""How long a change of plan takes in the true world, phase by phase, as Reconfiguration Broadcast carries it out.

Prepare: targets load weights (from their disk, or over the network) while the old plan serves. Pre-copy: KV goes over the
links, also while the old plan serves. Switch: sessions pause for their last page, or for their tokens to be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.orchestrator.switch_cost import PAUSE_POSITIONS, choose_transfer_mode, replay_ms
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan, kv_holders, kv_moves
from mec_platform.scenario.scenario import DeploymentSpec
from mec_platform.simulation.world import World

LOAD_S = 0.2
"""Taking a stage up from a node's own disk and warming it up, as `PolicySettings.fixed_switch_ms` says."""

ORDER_S = 0.02
"""One round of orders and answers between platform and members, on the management path."""


@dataclass(frozen=True, slots=True)
class Change:
    """When a change that begins now gets where. `moved_bytes` are of KV, `weights_bytes` of blocks fetched."""

    prepared_s: float
    paused_s: float
    committed_s: float
    moved_bytes: int
    weights_bytes: int
    replayed_tokens: int

    @property
    def pause_s(self) -> float:
        """For how long no tokens flow."""
        return self.committed_s - self.paused_s


def plan_the_change(
    world: World,
    deployment: DeploymentSpec,
    new: SplitPlan,
    estimate: Snapshot,
    truth: Snapshot,
    now_s: float,
    held: Mapping[str, frozenset[int]],
    policy: PolicySettings,
) -> Change:
    """Times of a change: how KV travels is chosen from the estimate, as in production; what it takes is of the truth.

    `truth` covers the nodes of both plans. `held` are blocks that nodes have fetched in this run.
    """
    old = truth.plan
    loads = [_load_s(world, deployment, stage.node, frozenset(stage.layers), held) for stage in new.stages]
    unchanged = () if old is None else old.stages
    slowest_s = max(
        (LOAD_S + load_s for stage, (load_s, _) in zip(new.stages, loads, strict=True) if stage not in unchanged),
        default=0.0,
    )
    prepared_s = now_s + ORDER_S + slowest_s
    fetched = sum(size for _, size in loads)
    sessions = sum(gateway.sessions for gateway in truth.gateways)
    if old is None or sessions == 0:
        return Change(prepared_s, prepared_s, prepared_s + ORDER_S, 0, fetched, 0)
    positions = sum(gateway.context_positions for gateway in truth.gateways)
    lost = [name for name in old.members if truth.node(name) is None]
    nobody_has_all = len(kv_holders(old, lost)) < len(old.stages)
    if nobody_has_all or choose_transfer_mode(new, estimate, policy).mode == "replay":
        end_s = prepared_s + ORDER_S + replay_ms(new, truth, policy) / 1e3
        return Change(prepared_s, prepared_s, end_s, 0, fetched, positions)
    per_position = world.shape(deployment).kv_bytes_per_token_per_block
    copied_s, moved = prepared_s, 0
    moves = kv_moves(old, new, lost)
    for move in moves:
        size = positions * per_position * len(move.layers)
        moved += size
        copied_s = max(copied_s, world.transfer_end_s(move.source, move.target, size, prepared_s))
    switched_s = copied_s + ORDER_S
    if set(lost) & set(old.nodes):  # sessions stand still: what standbys have is all brought in the pause
        return Change(prepared_s, prepared_s, switched_s, moved, fetched, 0)
    for move in moves:
        size = min(positions, PAUSE_POSITIONS * sessions) * per_position * len(move.layers)
        switched_s = max(switched_s, world.transfer_end_s(move.source, move.target, size, copied_s) + ORDER_S)
    return Change(prepared_s, copied_s, switched_s, moved, fetched, 0)


def missing_blocks(
    world: World, deployment: DeploymentSpec, node: str, wanted: frozenset[int], held: Mapping[str, frozenset[int]]
) -> frozenset[int]:
    """Blocks of a stage whose weights are not on the node yet."""
    local = world.node(node, deployment, 0.0).local_blocks
    if local is None:
        return frozenset()
    return wanted - local - held.get(node, frozenset())


def _load_s(
    world: World, deployment: DeploymentSpec, node: str, wanted: frozenset[int], held: Mapping[str, frozenset[int]]
) -> tuple[float, int]:
    """Seconds to fetch what is missing, and its bytes."""
    size = len(missing_blocks(world, deployment, node, wanted, held)) * world.shape(deployment).block_bytes
    return size / max(world.node(node, deployment, 0.0).weights_bytes_per_s, 1.0), size
