"""From many nodes to those that matter: what any plan costs at least that uses a node, by two sweeps over all nodes.

A sweep from the front and one from the back meet in every stage; their sum is the cheapest chain through that node, with
nodes that may hold several stages. A node whose cheapest chain costs more than a plan that is known is in no better plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mec_platform.control_plane.split_revision.cost_model import PlanCosts
from mec_platform.control_plane.split_revision.sweep import Bounds, Crossing, Dense, Memories
from mec_platform.control_plane.split_revision.terrain import (
    Floats,
    Ground,
    Hops,
    Ints,
    SiteHops,
    survey_hops,
    survey_site_hops,
)
from mec_platform.domain.capacity import NodeCapacity

# Up to this many nodes all pairs are looked at: beyond, sites stand for their nodes.
_PAIRED_NODES = 256


@dataclass(frozen=True, slots=True)
class Sited:
    """Hops by way of sites: from the cheapest end in each site to every node of a site, whoever that end is.

    A node may so hop to itself for the price of its site, and a pair's own link counts only where it is cheaper: what
    comes of this is a bound still, for no plan costs less over the links that there are.
    """

    hops: SiteHops

    def arrive(self, end: Floats) -> Floats:
        """The cheapest hop to each node."""
        hops = self.hops
        by_site = np.minimum.reduceat((end + hops.leave)[..., hops.order], hops.first, axis=-1)
        arrived: Floats = (by_site[..., None] + hops.cost).min(axis=-2)[..., hops.site] + hops.reach
        if len(hops.own_cost):
            own = np.minimum.reduceat(end[..., hops.own_source] + hops.own_cost, hops.own_first, axis=-1)
            arrived[..., hops.own_target] = np.minimum(arrived[..., hops.own_target], own)
        return arrived


def least_bottleneck_ms(ground: Ground) -> float:
    """What the busiest stage takes at least: that long if all nodes did an even share of the work."""
    if not ground.block_ms.min() > 0:
        return 0.0
    return float(max(ground.blocks / (1 / ground.block_ms).sum(), ground.block_ms.min()))


def most_promising(through: Floats, ground: Ground, count: int, wanted: Ints) -> Ints:
    """`count` nodes that cost the least to use, in their order; `wanted` ones among them, and room for all blocks."""
    usable = np.flatnonzero(np.isfinite(through))
    ranked = usable[np.argsort(through[usable], kind="stable")]
    ranked = np.concatenate([wanted, ranked[~np.isin(ranked, wanted)]])
    chosen = ranked[:count]
    if ground.room.inner[chosen].sum() < 1.5 * ground.blocks:
        half = ranked[: max(count // 2, 1)]
        rest = ranked[~np.isin(ranked, half)]
        chosen = np.concatenate([half, rest[np.argsort(-ground.room.inner[rest], kind="stable")][: count - len(half)]])
    return np.sort(chosen)


def crossings(costs: PlanCosts, nodes: Sequence[NodeCapacity]) -> tuple[Crossing, Crossing]:
    """Hops between any number of nodes, onwards and for a sweep from the back; no threshold rules any of them out."""
    if len(nodes) <= _PAIRED_NODES:
        return both_ways(survey_hops(costs, nodes))
    there = survey_site_hops(costs, nodes)
    return Sited(there), Sited(there.reversed())


def both_ways(hops: Hops) -> tuple[Crossing, Crossing]:
    """The same of hops that are known one by one."""
    return Dense(hops.cost[None]), Dense(np.ascontiguousarray(hops.cost.T)[None])


def additive_through(front: Bounds, ground: Ground, backwards: Crossing, most_ms: Floats, rows: Ints) -> Floats:
    """Of shape (rows, nodes): what adds up at least in any plan that uses a node, with nothing busier than a threshold.

    `front` was swept under the thresholds `most_ms`; `rows` are those that are asked for.
    """
    if not len(rows):
        return np.full((0, len(ground.names)), np.inf)
    back = Bounds(ground.reversed(), most_ms[rows], backwards, Memories.of((), len(ground.names)))
    through: Floats = (front.end[:, rows, 0] + back.arrival[::-1, :, 0]).min(axis=0)
    return through
