"""What a plan costs per token, and what memory its stages need. Counterpart: `search` minimises what is defined here.

A step is one token of every live session. It visits every stage once, so its latency is the *sum* of stage times and
hops; steps follow each other through the chain, so their rate is bound by the *busiest* resource, a stage or a link.
Both are in the objective, with privacy and what a change costs; all are milliseconds per token, so that they can be
added, compared and explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mec_platform.control_plane.split_revision.node_times import NodeTimes, load_of, node_times
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.switching import SLOWEST_BYTES_PER_S, Switching
from mec_platform.domain.capacity import LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.link_table import LinkTable
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import Stage

# A number, or an array of them: prices of many links are computed at once where all are needed.
Amount = TypeVar("Amount", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class PlanCost:
    """The cost of a plan, term by term. Times are milliseconds for one token of every live session.

    `hop_ms` has one entry more than `stage_ms`: gateway to first stage, between stages, last stage to gateway.
    `bottleneck_ms` is the longest time that one stage or one link is busy with a step; `imbalance_ms` is that less a fair
    share of `compute_ms` over all nodes that may be used. `exposure` is in [0, 1]. `affinity_ms` is the price of stages that
    fail together with another chain of the deployment. `switch_ms` is what going there from the snapshot's plan costs,
    spread over the tokens of the horizon.
    `total_ms = alpha * latency_ms + beta * imbalance_ms + throughput * bottleneck_ms + gamma_ms * exposure + affinity_ms
    + switch_ms`.
    """

    stage_ms: tuple[float, ...]
    hop_ms: tuple[float, ...]
    compute_ms: float
    latency_ms: float
    bottleneck_ms: float
    imbalance_ms: float
    exposure: float
    total_ms: float
    affinity_ms: float = 0.0
    switch_ms: float = 0.0

    @property
    def settled_ms(self) -> float:
        """The cost once the plan is in force: the total without what going there takes."""
        return self.total_ms - self.switch_ms


class HopPrice(NamedTuple):
    """A hop in one step: how long a token is under way, and how long the link is busy; measured, without any forecast."""

    latency_ms: float
    busy_ms: float
    measured_busy_ms: float


def plan_cost(stages: Sequence[Stage], snapshot: Snapshot, settings: PlanSettings) -> PlanCost | None:
    """The cost of these stages, or None where no model is known or a node of theirs is not alive.

    For many plans of one snapshot, make `PlanCosts` once.
    """
    return PlanCosts(snapshot, settings).cost(stages)


class PlanCosts:
    """The cost of plans in one snapshot: what is looked up for one plan is remembered for the next.

    Nodes called `exclude` are not to be used; they still count for what fails together with them.
    """

    def __init__(self, snapshot: Snapshot, settings: PlanSettings, exclude: frozenset[str] = frozenset()) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self.nodes = {node.name: node for node in snapshot.nodes}
        self.links = LinkTable.of(snapshot)
        self.times: dict[str, NodeTimes] = dict(node_times(snapshot))
        self.switching = Switching(snapshot, self.links, settings.default_link)
        self.taken = exclude | {name for plan in snapshot.replicas for name in plan.members}
        self.fair_share = 1 / max(1, sum(self.is_usable(node) for node in snapshot.nodes))
        self._shunned = shared_fates(snapshot)
        self._hops: dict[tuple[str, str], HopPrice] = {}
        self._switch: dict[str, tuple[float, ...]] = {}

    def is_usable(self, node: NodeCapacity) -> bool:
        """Whether the node may hold a stage at all: it runs the model, is not excluded and in no other chain."""
        return node.runs_model and node.name not in self.taken

    def cost(self, stages: Sequence[Stage]) -> PlanCost | None:
        """The cost of these stages, or None where no model is known or a node of theirs is not alive."""
        model, settings, nodes = self.snapshot.model, self.settings, self.nodes
        if model is None or not stages or any(stage.node not in nodes for stage in stages):
            return None
        times = [len(stage.layers) * self.times[stage.node].block_s * 1e3 for stage in stages]
        times[-1] += self.times[stages[-1].node].head_s * 1e3
        hops = [
            self.entry(stages[0].node),
            *(self.between(a.node, b.node) for a, b in pairwise(stages)),
            self.exit(stages[-1].node),
        ]
        compute = sum(times)
        latency = compute + sum(hop.latency_ms for hop in hops)
        bottleneck = max(*times, *(hop.busy_ms for hop in hops))
        imbalance = bottleneck - compute * self.fair_share
        exposure = sum(exposed_share(each.layers, model.blocks) for each in stages if not nodes[each.node].trusted)
        affinity = sum(self.affinity_ms(nodes[stage.node]) for stage in stages)
        switch = self.switch_ms(stages)
        return PlanCost(
            stage_ms=tuple(times),
            hop_ms=tuple(hop.latency_ms for hop in hops),
            compute_ms=compute,
            latency_ms=latency,
            bottleneck_ms=bottleneck,
            imbalance_ms=imbalance,
            exposure=exposure,
            total_ms=settings.alpha * latency
            + settings.beta * imbalance
            + settings.throughput * bottleneck
            + settings.gamma_ms * exposure
            + affinity
            + switch,
            affinity_ms=affinity,
            switch_ms=switch,
        )

    def between(self, source: str, target: str) -> HopPrice:
        """Activations of all rows of a step from one stage to the next."""
        found = self._hops.get((source, target))
        if found is None:
            found = self._hops[source, target] = self._hop(source, target, step_bytes(self.snapshot))
        return found

    def entry(self, first: str) -> HopPrice:
        """From the gateways to the first stage: the mean latency, weighed by sessions plus one; the busiest link."""
        return self._of_gateways("", first)

    def exit(self, last: str) -> HopPrice:
        """From the last stage back to the gateways, in the same way."""
        return self._of_gateways(last, "")

    def affinity_ms(self, node: NodeCapacity) -> float:
        """The price of a stage on this node that comes of what other chains of the deployment use."""
        return self.settings.shared_group_ms if not self._shunned.isdisjoint(fates(node)) else 0.0

    def switch_ms(self, stages: Sequence[Stage]) -> float:
        """What going from the snapshot's plan to these stages costs, per token of the horizon."""
        horizon = self.settings.switch_horizon_tokens
        if not horizon:
            return 0.0
        total = self.disturbance_ms() if not self.switching.stays(stages) else 0.0
        for stage in stages:
            prefix = self.switch_prefix_ms(stage.node)
            total += prefix[min(stage.layers.stop, len(prefix) - 1)] - prefix[min(stage.layers.start, len(prefix) - 1)]
        return total / horizon

    def disturbance_ms(self) -> float:
        """What a change costs whichever it is."""
        sessions = sum(gateway.sessions for gateway in self.snapshot.gateways)
        return self.settings.switch_fixed_ms + sessions * self.settings.switch_pause_ms_per_session

    def switch_prefix_ms(self, node: str) -> tuple[float, ...]:
        """Sums over blocks of what bringing them to `node` takes."""
        found = self._switch.get(node)
        if found is None:
            found = self._switch[node] = self.switching.prefix_ms(self.nodes[node])
        return found

    def _of_gateways(self, source: str, target: str) -> HopPrice:
        found = self._hops.get((source, target))
        if found is not None:
            return found
        latency, weights, busy, measured = 0.0, 0, 0.0, 0.0
        for gateway in self.snapshot.gateways:
            hop = self._hop(
                source or gateway.name, target or gateway.name, frame_bytes(gateway.sessions, self.settings)
            )
            latency += (gateway.sessions + 1) * hop.latency_ms
            weights += gateway.sessions + 1
            busy, measured = max(busy, hop.busy_ms), max(measured, hop.measured_busy_ms)
        found = self._hops[source, target] = HopPrice(latency / weights if weights else 0.0, busy, measured)
        return found

    def _hop(self, source: str, target: str, size: int) -> HopPrice:
        default = self.settings.default_link
        link = self.links.link(source, target) or default
        return price_hop(link, default, size, self.settings)


def price_hop(link: LinkCapacity, default: LinkCapacity, size: int, settings: PlanSettings) -> HopPrice:
    """What `size` bytes over this link cost: as measured, nearer to the default the less sure that is, and nearer to what
    is forecast the surer that is. A link that will break soon has its price on top.
    """
    under_way, busy, extra = link.round_trip_s * 500, busy_ms(link.bytes_per_s, size), 0.0
    measured = busy
    if link.confidence != 1.0:
        under_way = lean(default.round_trip_s * 500, under_way, link.confidence)
        busy = lean(busy_ms(default.bytes_per_s, size), busy, link.confidence)
    forecast = link.forecast
    if forecast is not None:
        under_way = lean(under_way, forecast.round_trip_s * 500, forecast.confidence)
        busy = lean(busy, busy_ms(forecast.bytes_per_s, size), forecast.confidence)
        if forecast.breaks_in_s is not None and forecast.breaks_in_s <= settings.forecast_horizon_s:
            extra = forecast.confidence * settings.broken_link_ms
    return HopPrice(under_way + busy + extra, busy, measured)


def lean(one: float, other: Amount, share: Amount) -> Amount:
    """Between two numbers, or arrays of them: `one` where `share` is 0, `other` where it is 1."""
    return one + share * (other - one)


def busy_ms(bytes_per_s: float, size: int) -> float:
    """How long a link of this rate is busy with `size` bytes."""
    return size / max(bytes_per_s, SLOWEST_BYTES_PER_S) * 1e3


def step_bytes(snapshot: Snapshot) -> int:
    """What crosses a hop between stages in one step: a row of activations for each session."""
    return 0 if snapshot.model is None else load_of(snapshot).rows * snapshot.model.hidden_bytes_per_row


def frame_bytes(sessions: int, settings: PlanSettings) -> int:
    """What crosses between a gateway and the chain in one step."""
    return settings.token_frame_bytes * max(sessions, 1)


def fates(node: NodeCapacity) -> set[tuple[str, str]]:
    """What fails together with this node."""
    return {(kind, name) for kind, name in (("group", node.group), ("machine", node.machine)) if name}


def shared_fates(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """What the other chains of the deployment fail together with."""
    taken = {name for plan in snapshot.replicas for name in plan.members}
    return frozenset(fate for node in snapshot.nodes if node.name in taken for fate in fates(node))


def exposed_share(layers: LayerRange, blocks: int) -> float:
    """Share of the model's privacy weight in `layers`. Block i weighs `blocks - i`: shallow activations tell more."""
    whole = blocks * (blocks + 1) / 2
    return len(layers) * (2 * blocks - layers.start - layers.stop + 1) / 2 / whole


def kv_positions(snapshot: Snapshot, settings: PlanSettings) -> int:
    """Positions of KV that every stage must have room for: those there are and will be, or the reserve where it is more."""
    sessions = sum(gateway.sessions for gateway in snapshot.gateways)
    held = sum(gateway.context_positions for gateway in snapshot.gateways)
    return max(settings.kv_tokens_reserved, held + sessions * settings.kv_growth_tokens)


def stage_memory_bytes(
    layers: LayerRange, model: ModelShape, settings: PlanSettings, positions: int | None = None
) -> int:
    """Memory of a stage: its blocks with their KV, the embedding on the first stage, the head on the last.

    `positions` is how many there must be room for (see `kv_positions`); without it, the reserve.
    """
    positions = settings.kv_tokens_reserved if positions is None else positions
    needed = len(layers) * (model.block_bytes + positions * model.kv_bytes_per_token_per_block)
    if layers.start == 0:
        needed += model.embed_bytes
    if layers.stop == model.blocks:
        needed += model.head_bytes
    return needed
