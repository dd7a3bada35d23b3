"""Capacity C(t): what the control plane knows of nodes and links at one instant, as one immutable snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan


@dataclass(frozen=True, slots=True)
class LinkForecast:
    """What a link is expected to be `after_s` seconds from the snapshot, and why in words.

    `breaks_in_s` is when it is expected to carry no tokens for a while (a handover, no signal left); None where it is not.
    `confidence` is in [0, 1]: how far forecasts of this kind have been right lately.
    """

    after_s: float
    bytes_per_s: float
    round_trip_s: float
    confidence: float
    reason: str
    breaks_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class LinkCapacity:
    """One direction of a link, measured by its sender. `source` and `target` are members, or sites in `site_links`.

    `confidence` in [0, 1] grows with the number of agreeing samples and falls with `age_s`, the age of the latest.
    """

    source: str
    target: str
    bytes_per_s: float
    round_trip_s: float
    confidence: float = 1.0
    age_s: float = 0.0
    forecast: LinkForecast | None = None


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """One edge node. Times are of one row (a decode step); `memory_bytes` is what the node offers to stages.

    `profile` says what other loads cost, where the node was profiled; `profile_ratio` is what its recent runs took over
    what the profile says of them.

    `site` names where it is: between nodes that have not measured each other, `Snapshot.site_links` count. `machine` names
    the machine whose compute and memory it shares with other nodes ("" where it has one of its own); `group` is what
    fails together (a rack, a power feed): replica chains avoid sharing one. `runs_model` is false where there is no artefact
    for its target. `local_blocks` are the blocks whose weights it need not fetch, None where that is all of them;
    others come at `weights_bytes_per_s`. `busy_share` in [0, 1] is how much of the last seconds its compute was in use.

    `confidence` that it is there is 1 while its reports come, and falls with `age_s`, the age of the latest, where silence
    is not believed (`Snapshot.suspicion`).
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
    site: str = ""
    machine: str = ""
    group: str = ""
    runs_model: bool = True
    local_blocks: frozenset[int] | None = None
    weights_bytes_per_s: float = 12.5e6
    busy_share: float = 0.0
    confidence: float = 1.0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GatewayCapacity:
    """One gateway: where tokens start and end. `context_positions` counts the KV positions of its live sessions.

    `queued` requests wait for a place; `token_s` and `first_token_s` are 95th percentiles of the last seconds' tokens and
    first tokens, 0 where there were none.
    """

    name: str
    address: str
    sessions: int
    context_positions: int
    tokens_per_s: float
    site: str = ""
    queued: int = 0
    token_s: float = 0.0
    first_token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision may look at. `now_s` is monotonic seconds of the platform's clock.

    Only members that are alive are in `nodes` and `gateways`; `lost_nodes` names those that were seen earlier, are in
    the plan, and are gone, or have come back without what they held of it. `model` is None until a node has reported one.

    `site_links` are links between sites by name, for pairs of members without a link of their own. `replicas` are the
    plans of the other chains of this deployment: committed, or where a chain is being changed, what it is on its way to.
    `suspicion` says in words why silence is not trusted right now: so many members fell silent together that the fault is
    probably ours; "" where there is none.
    """

    now_s: float
    model: ModelShape | None
    nodes: tuple[NodeCapacity, ...]
    gateways: tuple[GatewayCapacity, ...]
    links: tuple[LinkCapacity, ...]
    plan: SplitPlan | None
    lost_nodes: frozenset[str]
    site_links: tuple[LinkCapacity, ...] = ()
    replicas: tuple[SplitPlan, ...] = ()
    suspicion: str = ""

    def node(self, name: str) -> NodeCapacity | None:
        """The live node of that name, or None."""
        return next((node for node in self.nodes if node.name == name), None)

    def link(self, source: str, target: str) -> LinkCapacity | None:
        """The estimate of one direction, or None where nothing was measured yet."""
        return next((link for link in self.links if link.source == source and link.target == target), None)
