"""What a change costs: pauses and KV that moves, or tokens that are computed again; summed over all sessions of the chain.

Split Revision may count what a change costs too, to find plans near the current one; whether a change pays is judged by
what stands here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mec_platform.control_plane.orchestrator.links import measured_links
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.domain.capacity import LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.split_plan import KvMove, SplitPlan, kv_holders, kv_moves

PAUSE_POSITIONS = 32
"""Positions of a session that may be left for its pause where copies ahead cannot keep up with the decoding: two pages of 16."""

SHORT_COPY_MS = 2_000.0
LONGEST_COPY_IN_REPLAYS = 4.0
"""Copies ahead that take no longer than this are worth it whatever a replay takes."""

ONE_PAUSE_MS = 2.0
"""A copy of all KV that takes no longer is made in the pause. That is as long as a first frame that computes a few
positions again takes longer than one that does not, which is what copies ahead leave."""

NODES_COPY_BYTES_PER_S = 100e6
"""What two nodes cut, send and store of KV beside the link's own time: some messages and turns of their compute threads."""

Links = Mapping[tuple[str, str], LinkCapacity]


@dataclass(frozen=True, slots=True)
class SwitchCost:
    """Going from the snapshot's plan to another one.

    `total_ms` is what all sessions together lose, `pause_ms` what of it they stand still for; `moved_bytes` is KV that is
    copied. `lead_s` passes before sessions can switch: weights that a node does not have are fetched, KV is copied ahead.
    """

    total_ms: float
    pause_ms: float
    moved_bytes: float
    lead_s: float


@dataclass(frozen=True, slots=True)
class TransferChoice:
    """How sessions should come over to a plan, and why, in words with the figures that decided."""

    mode: Literal["pre_copy", "stop_and_copy", "standby", "replay"]
    reason: str


NO_COST = SwitchCost(0.0, 0.0, 0.0, 0.0)


def switch_cost(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> SwitchCost:
    """KV is copied or, where that is slower (a link is down to a trickle) or impossible (its node is lost), rebuilt by
    replaying tokens through the new plan; the cheaper of the two counts.
    """
    sessions, _ = chain_load(snapshot)
    pauses = sessions * settings.pause_ms_per_session
    fetch_s = _fetch_s(new, snapshot)
    old = snapshot.plan
    if old is None:
        return SwitchCost(settings.fixed_switch_ms + pauses, pauses, 0.0, fetch_s)
    replay = replay_ms(new, snapshot, settings)
    moves = _moves(old, new, snapshot)
    copy = None if moves is None else transfer_ms(moves, snapshot, settings)
    if moves is None or copy is None or replay < copy:
        return SwitchCost(settings.fixed_switch_ms + pauses + replay, pauses + replay, 0.0, fetch_s)
    moved = sum(len(move.layers) for move in moves) * _kv_bytes_per_block(snapshot)
    return SwitchCost(settings.fixed_switch_ms + pauses + copy, pauses, moved, fetch_s + copy / 1e3)


def _without_kv(plan: SplitPlan, snapshot: Snapshot) -> list[str]:
    """Nodes of a plan in force that are gone, or have come back without what they held."""
    alive = {node.name for node in snapshot.nodes} - snapshot.lost_nodes
    return sorted(set(plan.members) - alive)


def chain_load(snapshot: Snapshot) -> tuple[float, float]:
    """Sessions of one chain and their KV positions: chains of a deployment share them evenly."""
    chains = 1 + len(snapshot.replicas)
    sessions = sum(gateway.sessions for gateway in snapshot.gateways)
    return sessions / chains, sum(gateway.context_positions for gateway in snapshot.gateways) / chains


def choose_transfer_mode(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> TransferChoice:
    """How sessions should come over: by copies of their KV, or by replaying their tokens where copies are too slow.

    A copy goes ahead while tokens flow, so it may take longer than a replay, which stops them; but not for ever, and what
    is left for the pause must not take longer than the replay. Where all of it fits into one pause, nothing goes ahead:
    that would take messages and bandwidth for nothing.
    """
    if snapshot.plan is None:
        return TransferChoice("pre_copy", "no plan is in force")
    lost = [name for name in _without_kv(snapshot.plan, snapshot) if name in snapshot.plan.nodes]
    moves = _moves(snapshot.plan, new, snapshot)
    if moves is None:
        return TransferChoice("replay", f"{', '.join(lost)} is lost, and the KV of its layers with it")
    if lost:
        return TransferChoice("standby", f"{', '.join(lost)} is lost, and standbys have copies of the KV of its layers")
    sessions, positions = chain_load(snapshot)
    if not moves or not positions:
        what = "no layer changes its node" if not moves else "no gateway has told of KV"
        return TransferChoice("pre_copy", f"{what}, so what there is goes ahead")
    copy, replay = transfer_ms(moves, snapshot, settings), replay_ms(new, snapshot, settings)
    trip = _longest_trip_ms(moves, snapshot)
    links = measured_links(snapshot, [(move.source, move.target) for move in moves])
    slowest = min(_rate(links, move.source, move.target, settings) for move in moves)
    size = sum(len(move.layers) for move in moves) * _kv_bytes_per_block(snapshot)
    measured = "" if len(links) == len({(move.source, move.target) for move in moves}) else " (not all of it measured)"
    facts = (
        f"{positions:.0f} positions of {sessions:g} sessions, {size / 1e6:.2f} MB of KV at {slowest / 1e6:.3g} MB/s{measured}: "
        f"a copy takes {copy:.0f} ms and a round trip of {trip:.1f} ms, a replay {replay:.0f} ms"
    )
    # A link that stands still is a long round trip at an unchanged rate: the last pages do not arrive before it is over.
    pause = copy * min(1.0, PAUSE_POSITIONS * sessions / positions) + trip
    longest = max(SHORT_COPY_MS, LONGEST_COPY_IN_REPLAYS * replay)
    if pause > replay:
        return TransferChoice(
            "replay", f"{facts}; what the pause would copy takes {pause:.0f} ms, longer than the replay"
        )
    if copy > longest:
        return TransferChoice("replay", f"{facts}; a copy may go ahead for {longest:.0f} ms, and this takes longer")
    if copy + trip + size / NODES_COPY_BYTES_PER_S * 1e3 <= ONE_PAUSE_MS:
        return TransferChoice("stop_and_copy", f"{facts}; the copy fits into one pause, so none goes ahead")
    return TransferChoice("pre_copy", f"{facts}; the copy goes ahead while tokens flow")


def _moves(old: SplitPlan, new: SplitPlan, snapshot: Snapshot) -> tuple[KvMove, ...] | None:
    """What KV has to travel, from standbys where their stage is lost; None where nobody has some of it."""
    lost = _without_kv(old, snapshot)
    return kv_moves(old, new, lost) if len(kv_holders(old, lost)) == len(old.stages) else None


def transfer_ms(moves: Sequence[KvMove], snapshot: Snapshot, settings: PolicySettings) -> float:
    """Time to copy the KV of every position of every session over the links, one move after the other."""
    links = measured_links(snapshot, [(move.source, move.target) for move in moves])
    blocks_s = [len(move.layers) / _rate(links, move.source, move.target, settings) for move in moves]
    return sum(blocks_s) * _kv_bytes_per_block(snapshot) * 1e3


def _longest_trip_ms(moves: Sequence[KvMove], snapshot: Snapshot) -> float:
    """The longest round trip of the links that KV moves over; those that nobody has measured count for nothing."""
    links = measured_links(snapshot, [(move.source, move.target) for move in moves])
    return max((link.round_trip_s for link in links.values()), default=0.0) * 1e3


def replay_ms(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> float:
    """Time to compute every position of every session again: prompt-like work on each stage, rows over each hop."""
    sessions, positions = chain_load(snapshot)
    names = set(new.nodes)
    nodes = {node.name: node for node in snapshot.nodes if node.name in names}
    total_s = 0.0
    for stage in new.stages:
        node = nodes.get(stage.node)
        if node is not None:
            total_s += len(stage.layers) * _replay_block_s(node, positions, max(1.0, sessions))
    row_bytes = 0 if snapshot.model is None else snapshot.model.hidden_bytes_per_row
    hops = [*pairwise(new.nodes)]
    links = measured_links(snapshot, hops)
    for source, target in hops:
        total_s += positions * row_bytes / _rate(links, source, target, settings)
    return total_s * 1e3


def _replay_block_s(node: NodeCapacity, positions: float, sessions: float) -> float:
    """One block for all positions, shared evenly among the sessions: from the node's profile, or its live prefill time."""
    if node.profile is None:
        return positions * node.prefill_block_time_s_per_row
    return sessions * node.profile.replay_block_s(positions / sessions) * node.profile_ratio


def _fetch_s(new: SplitPlan, snapshot: Snapshot) -> float:
    """Until every node of the new plan has the weights of its blocks; nodes fetch side by side."""
    model = snapshot.model
    stages = {stage.node: stage.layers for stage in new.stages}
    if model is None:
        return 0.0
    times = [0.0]
    for node in snapshot.nodes:
        if node.name in stages and node.local_blocks is not None:
            missing = len(set(stages[node.name]) - node.local_blocks)
            times.append(missing * model.block_bytes / max(node.weights_bytes_per_s, 1.0))
    return max(times)


def _kv_bytes_per_block(snapshot: Snapshot) -> float:
    per_position = 0 if snapshot.model is None else snapshot.model.kv_bytes_per_token_per_block
    return per_position * chain_load(snapshot)[1]


def _rate(links: Links, source: str, target: str, settings: PolicySettings) -> float:
    link = links.get((source, target))
    return settings.default_link_bytes_per_s if link is None else max(link.bytes_per_s, 1.0)
