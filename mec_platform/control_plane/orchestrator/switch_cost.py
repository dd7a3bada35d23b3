"""What a change costs: pauses and KV that moves, or tokens that are computed again; summed over all sessions."""

from __future__ import annotations

from typing import Literal

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan, kv_moves

PAUSE_POSITIONS = 32
"""Positions of a session whose KV is copied in its pause: at most two pages of 16."""

SHORT_COPY_MS = 2_000.0
LONGEST_COPY_IN_REPLAYS = 4.0
"""Copies ahead that take no longer than this are worth it whatever a replay takes."""


def switch_cost_ms(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> float:
    """Milliseconds that all sessions together lose by going from the snapshot's plan to `new`.

    KV is copied or, where that is slower (a link is down to a trickle) or impossible (its node is lost), rebuilt by
    replaying tokens through the new plan; the cheaper of the two counts.
    """
    sessions = sum(gateway.sessions for gateway in snapshot.gateways)
    fixed = settings.fixed_switch_ms + sessions * settings.pause_ms_per_session
    old = snapshot.plan
    if old is None:
        return fixed
    replay = replay_ms(new, snapshot, settings)
    if any(snapshot.node(name) is None for name in old.nodes):
        return fixed + replay
    return fixed + min(replay, transfer_ms(old, new, snapshot, settings))


def choose_transfer_mode(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> Literal["pre_copy", "replay"]:
    """How sessions should come over: by copies of their KV, or by replaying their tokens where copies are too slow.

    A copy goes ahead while tokens flow, so it may take longer than a replay, which stops them; but not for ever, and
    its last pages, which are copied in the pause, must not take longer than the replay.
    """
    if snapshot.plan is None:
        return "pre_copy"
    positions = sum(gateway.context_positions for gateway in snapshot.gateways)
    in_pause = PAUSE_POSITIONS * sum(gateway.sessions for gateway in snapshot.gateways)
    copy, replay = transfer_ms(snapshot.plan, new, snapshot, settings), replay_ms(new, snapshot, settings)
    pause = copy * min(1.0, in_pause / positions) if positions else 0.0
    if pause > replay or copy > max(SHORT_COPY_MS, LONGEST_COPY_IN_REPLAYS * replay):
        return "replay"
    return "pre_copy"


def transfer_ms(old: SplitPlan, new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> float:
    """Time to copy the KV of every position of every session over the links, one move after the other."""
    total_s = 0.0
    for move in kv_moves(old, new):
        rate = _rate(snapshot, move.source, move.target, settings)
        total_s += len(move.layers) * _kv_bytes_per_block(snapshot) / rate
    return total_s * 1e3


def replay_ms(new: SplitPlan, snapshot: Snapshot, settings: PolicySettings) -> float:
    """Time to compute every position of every session again: prompt-like work on each stage, rows over each hop."""
    positions = sum(gateway.context_positions for gateway in snapshot.gateways)
    sessions = max(1, sum(gateway.sessions for gateway in snapshot.gateways))
    total_s = 0.0
    for stage in new.stages:
        node = snapshot.node(stage.node)
        if node is not None:
            total_s += len(stage.layers) * _replay_block_s(node, positions, sessions)
    row_bytes = 0 if snapshot.model is None else snapshot.model.hidden_bytes_per_row
    for source, target in zip(new.nodes, new.nodes[1:], strict=False):
        total_s += positions * row_bytes / _rate(snapshot, source, target, settings)
    return total_s * 1e3


def _replay_block_s(node: NodeCapacity, positions: int, sessions: int) -> float:
    """One block for all positions, shared evenly among the sessions: from the node's profile, or its live prefill time."""
    if node.profile is None:
        return positions * node.prefill_block_time_s_per_row
    return sessions * node.profile.replay_block_s(positions / sessions) * node.profile_ratio


def _kv_bytes_per_block(snapshot: Snapshot) -> int:
    per_position = 0 if snapshot.model is None else snapshot.model.kv_bytes_per_token_per_block
    return per_position * sum(gateway.context_positions for gateway in snapshot.gateways)


def _rate(snapshot: Snapshot, source: str, target: str, settings: PolicySettings) -> float:
    link = snapshot.link(source, target)
    return settings.default_link_bytes_per_s if link is None else max(link.bytes_per_s, 1.0)
