"""What a block and the head take on every node of a snapshot, at the load that the snapshot shows: one number each.

The load is one decode step of all live sessions together. A node with a cost profile is asked what that load costs, and the
answer is multiplied by what its recent runs took over what the profile says of them: so throttling and other tenants count.
A node without one is taken by its live time for one row, which grows with the load as nodes with a profile do; where no
node has a profile, nothing grows. Counterpart: `cost_model` and `search` look at nothing else of a node's speed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.cost_profile import Batch, CostProfile

_ONE_ROW = Batch(1, own_positions=1)


@dataclass(frozen=True, slots=True)
class NodeTimes:
    """Seconds for all rows of a step; `source` says in words where they come from."""

    block_s: float
    head_s: float
    source: str


def load_of(snapshot: Snapshot) -> Batch:
    """One decode step of all sessions, one of them at least."""
    sessions = sum(gateway.sessions for gateway in snapshot.gateways)
    positions = sum(gateway.context_positions for gateway in snapshot.gateways)
    return Batch(max(sessions, 1), own_positions=max(positions, sessions, 1))


def node_times(snapshot: Snapshot) -> Mapping[str, NodeTimes]:
    """By name, for every live node."""
    load = load_of(snapshot)
    profiles = [node.profile for node in snapshot.nodes if node.profile is not None]
    block_growth, head_growth = 1.0, 1.0
    if profiles:
        block_growth = statistics.median(each.block_s(load) / each.block_s(_ONE_ROW) for each in profiles)
        head_growth = statistics.median(_head_growth(each, load) for each in profiles)
    return {
        node.name: _live_times(node, block_growth, head_growth)
        if node.profile is None
        else _profile_times(node.profile, node.profile_ratio, load)
        for node in snapshot.nodes
    }


def describe_load(snapshot: Snapshot) -> str:
    """The load in words."""
    load = load_of(snapshot)
    return f"{load.rows} row{'s' if load.rows > 1 else ''} over {load.own_positions:.0f} KV positions"


def _profile_times(profile: CostProfile, ratio: float, load: Batch) -> NodeTimes:
    source = f"profile ({profile.source}, {profile.rms_error:.0%} rms) x {ratio:.2f} from live times"
    return NodeTimes(profile.block_s(load) * ratio, profile.head_s(load.rows) * ratio, source)


def _live_times(node: NodeCapacity, block_growth: float, head_growth: float) -> NodeTimes:
    source = "live times of one row"
    if block_growth > 1:
        source += f" x {block_growth:.2f}, as nodes with a profile grow"
    return NodeTimes(node.block_time_s * block_growth, node.head_time_s * head_growth, source)


def _head_growth(profile: CostProfile, load: Batch) -> float:
    one = profile.head_s(1)
    return profile.head_s(load.rows) / one if one > 0 else 1.0
