"""What a plan costs per token, and what memory its stages need. Counterpart: `search` minimises what is defined here.

One token of one session visits every stage once, so its latency is the *sum* of stage times and hops; many sessions
share the chain, so their throughput is bound by the *largest* stage. Both are in the objective, with privacy as third
term; all are milliseconds per token, so that they can be added, compared and explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mec_platform.control_plane.split_revision.node_times import node_times
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import Stage

# A link that was measured as standing still still gets a finite cost, so that plans over dead links can be compared.
SLOWEST_BYTES_PER_S = 1.0


@dataclass(frozen=True, slots=True)
class PlanCost:
    """The cost of a plan, term by term. Times are milliseconds for one token of every live session.

    `hop_ms` has one entry more than `stage_ms`: gateway to first stage, between stages, last stage to gateway.
    `imbalance_ms` is `bottleneck_ms` less a fair share of `compute_ms`; `exposure` is in [0, 1].
    `total_ms = alpha * latency_ms + beta * imbalance_ms + gamma_ms * exposure`.
    """

    stage_ms: tuple[float, ...]
    hop_ms: tuple[float, ...]
    compute_ms: float
    latency_ms: float
    bottleneck_ms: float
    imbalance_ms: float
    exposure: float
    total_ms: float


def plan_cost(stages: Sequence[Stage], snapshot: Snapshot, settings: PlanSettings) -> PlanCost | None:
    """The cost of these stages, or None where no model is known or a node of theirs is not alive."""
    placed = [snapshot.node(stage.node) for stage in stages]
    nodes = [node for node in placed if node is not None]
    model = snapshot.model
    if model is None or not stages or len(nodes) != len(placed):
        return None
    speeds = node_times(snapshot)
    times = [len(stage.layers) * speeds[stage.node].block_s * 1e3 for stage in stages]
    times[-1] += speeds[nodes[-1].name].head_s * 1e3
    times_of = HopTimes.of(snapshot, settings)
    hops = [
        times_of.entry(nodes[0].name),
        *(times_of.between(a.name, b.name) for a, b in pairwise(nodes)),
        times_of.exit(nodes[-1].name),
    ]
    compute, bottleneck = sum(times), max(times)
    latency = compute + sum(hops)
    # (largest / total - 1 / usable nodes) * total: zero where every live node does the same share of the work.
    imbalance = bottleneck - compute / len(snapshot.nodes)
    exposure = sum(
        exposed_share(stage.layers, model.blocks) for stage, node in zip(stages, nodes, strict=True) if not node.trusted
    )
    return PlanCost(
        stage_ms=tuple(times),
        hop_ms=tuple(hops),
        compute_ms=compute,
        latency_ms=latency,
        bottleneck_ms=bottleneck,
        imbalance_ms=imbalance,
        exposure=exposure,
        total_ms=settings.alpha * latency + settings.beta * imbalance + settings.gamma_ms * exposure,
    )


@dataclass(frozen=True, slots=True)
class HopTimes:
    """Milliseconds per token for every hop of a snapshot; built once, because snapshots hold links as a flat tuple."""

    links: Mapping[tuple[str, str], LinkCapacity]
    gateways: tuple[GatewayCapacity, ...]
    hidden_bytes_per_row: int
    settings: PlanSettings

    @classmethod
    def of(cls, snapshot: Snapshot, settings: PlanSettings) -> HopTimes:
        """The hops of this snapshot; links that are missing take the default."""
        links = {(link.source, link.target): link for link in snapshot.links}
        size = 0 if snapshot.model is None else snapshot.model.hidden_bytes_per_row
        return cls(links, snapshot.gateways, size, settings)

    def between(self, source: str, target: str) -> float:
        """One row of activations from one stage to the next."""
        return self._hop_ms(source, target, self.hidden_bytes_per_row)

    def entry(self, first: str) -> float:
        """From the gateways to the first stage: mean over gateways, each weighs its sessions plus one."""
        return self._gateway_mean([self._hop_ms(g.name, first, self.settings.token_frame_bytes) for g in self.gateways])

    def exit(self, last: str) -> float:
        """From the last stage back to the gateways; the same mean."""
        return self._gateway_mean([self._hop_ms(last, g.name, self.settings.token_frame_bytes) for g in self.gateways])

    def _hop_ms(self, source: str, target: str, size: int) -> float:
        link = self.links.get((source, target), self.settings.default_link)
        return (link.round_trip_s / 2 + size / max(link.bytes_per_s, SLOWEST_BYTES_PER_S)) * 1e3

    def _gateway_mean(self, hops: Sequence[float]) -> float:
        weights = [gateway.sessions + 1 for gateway in self.gateways]
        if not weights:
            return 0.0
        return sum(weight * hop for weight, hop in zip(weights, hops, strict=True)) / sum(weights)


def exposed_share(layers: LayerRange, blocks: int) -> float:
    """Share of the model's privacy weight in `layers`. Block i weighs `blocks - i`: shallow activations tell more."""
    whole = blocks * (blocks + 1) / 2
    return len(layers) * (2 * blocks - layers.start - layers.stop + 1) / 2 / whole


def kv_bytes_per_block(model: ModelShape, settings: PlanSettings) -> int:
    """KV that one block must have room for."""
    return model.kv_bytes_per_token_per_block * settings.kv_tokens_reserved


def stage_memory_bytes(layers: LayerRange, model: ModelShape, settings: PlanSettings) -> int:
    """Memory of a stage: its blocks with their KV, the embedding on the first stage, the head on the last."""
    needed = len(layers) * (model.block_bytes + kv_bytes_per_block(model, settings))
    if layers.start == 0:
        needed += model.embed_bytes
    if layers.stop == model.blocks:
        needed += model.head_bytes
    return needed
