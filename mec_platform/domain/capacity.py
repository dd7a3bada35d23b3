"""Capacity C(t): what the control plane knows of nodes and links at one instant, as one immutable snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan


@dataclass(frozen=True, slots=True)
class LinkCapacity:
    """One direction of a link, measured by its sender."""

    source: str
    target: str
    bytes_per_s: float
    round_trip_s: float


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """One edge node. Times are of one row (a decode step); `memory_bytes` is what the node offers to stages.

    `profile` says what other loads cost, where the node was profiled; `profile_ratio` is what its recent runs took over
    what the profile says of them.
    """

    name: str
    address: str
    trusted: bool
    hardware: HardwareTarget
    memory_bytes: int
    block_time_s: float
    head_time_s: float
    prefill_block_time_s_per_row: float
    sessions: int
    profile: CostProfile | None = None
    profile_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class GatewayCapacity:
    """One gateway: where tokens start and end. `context_positions` counts the KV positions of its live sessions."""

    name: str
    address: str
    sessions: int
    context_positions: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision may look at. `now_s` is monotonic seconds of the platform's clock.

    Only members that are alive are in `nodes` and `gateways`; `lost_nodes` names those that were seen earlier, are in
    the plan, and are gone. `model` is None until a node has reported one.
    """

    now_s: float
    model: ModelShape | None
    nodes: tuple[NodeCapacity, ...]
    gateways: tuple[GatewayCapacity, ...]
    links: tuple[LinkCapacity, ...]
    plan: SplitPlan | None
    lost_nodes: frozenset[str]

    def node(self, name: str) -> NodeCapacity | None:
        """The live node of that name, or None."""
        return next((node for node in self.nodes if node.name == name), None)

    def link(self, source: str, target: str) -> LinkCapacity | None:
        """The estimate of one direction, or None where nothing was measured yet."""
        return next((link for link in self.links if link.source == source and link.target == target), None)
