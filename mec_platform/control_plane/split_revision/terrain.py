"""A snapshot as arrays: what the search needs of nodes and hops, weighted and in milliseconds.

Nodes are columns in alphabetical order. What adds up over a plan is in `Ground` and the hops; what only the largest counts of
(how long a stage or a link is busy) stands beside it, so that a sweep can be told "nothing busier than this".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mec_platform.control_plane.split_revision.cost_model import (
    PlanCosts,
    exposed_share,
    kv_positions,
    lean,
    price_hop,
    stage_memory_bytes,
    step_bytes,
)
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.switching import SLOWEST_BYTES_PER_S
from mec_platform.domain.capacity import LinkCapacity, NodeCapacity
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What decides between plans that cost the same: each stage costs this much more in the search, so that fewer are found;
_STAGE_MS = 1e-9
# a node costs so much more for each that comes before it in the alphabet,
_LATER_NAME_MS = 1e-11
# a hop back in the alphabet so much,
_BACKWARDS_MS = 1e-10
# and a cut so much for each block before it, so that the first stages are the short ones.
_LATER_CUT_MS = 1e-12
# Rounding must not keep a stage out that takes exactly as long as it may.
_EXACTLY = 1 + 1e-12


@dataclass(frozen=True, slots=True)
class Room:
    """How many blocks a stage may have on each node: between others, as the first, as the last, and as the only one."""

    inner: Ints
    first: Ints
    last: Ints
    whole: Ints

    def reversed(self) -> Room:
        """The same for a chain that is walked from its end."""
        return Room(self.inner, self.last, self.first, self.whole)

    def take(self, nodes: Ints) -> Room:
        """The same of some nodes."""
        return Room(self.inner[nodes], self.first[nodes], self.last[nodes], self.whole[nodes])


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything about nodes. Blocks `[a, b)` on node n cost `prefix[b, n] - prefix[a, n]`.

    `entry` and `exit` are what starting and ending there costs, `entry_busy` and `exit_busy` how long links of gateways are
    busy. `starts[a, n]` is infinite where node n may hold no stage that starts at block a, `stops[b, n]` where none
    that stops before block b, else next to nothing. `first_ms` and `last_ms` are what the first and the last stage take beside
    blocks.
    """

    names: tuple[str, ...]
    prefix: Floats
    entry: Floats
    exit: Floats
    entry_busy: Floats
    exit_busy: Floats
    block_ms: Floats
    first_ms: Floats
    last_ms: Floats
    starts: Floats
    stops: Floats
    room: Room

    @property
    def blocks(self) -> int:
        """Of the model."""
        return len(self.prefix) - 1

    def reversed(self) -> Ground:
        """The same for chains that are walked from their end: block i is block `blocks - 1 - i`."""
        return replace(
            self,
            prefix=self.prefix[-1] - self.prefix[::-1],
            entry=self.exit,
            exit=self.entry,
            entry_busy=self.exit_busy,
            exit_busy=self.entry_busy,
            first_ms=self.last_ms,
            last_ms=self.first_ms,
            starts=self.stops[::-1],
            stops=self.starts[::-1],
            room=self.room.reversed(),
        )

    def take(self, nodes: Ints) -> Ground:
        """The same of some nodes."""
        return Ground(
            names=tuple(self.names[node] for node in nodes.tolist()),
            prefix=self.prefix[:, nodes],
            entry=self.entry[nodes],
            exit=self.exit[nodes],
            entry_busy=self.entry_busy[nodes],
            exit_busy=self.exit_busy[nodes],
            block_ms=self.block_ms[nodes],
            first_ms=self.first_ms[nodes],
            last_ms=self.last_ms[nodes],
            starts=self.starts[:, nodes],
            stops=self.stops[:, nodes],
            room=self.room.take(nodes),
        )

    def room_within(self, most_ms: Floats) -> Room:
        """Room of shape (thresholds, nodes) for stages that take no longer than a threshold, memory counted too."""
        limit = most_ms[:, None] * _EXACTLY

        def fit(extra: Floats, room: Ints) -> Ints:
            with np.errstate(divide="ignore", invalid="ignore"):
                count = np.floor((limit - extra) / self.block_ms * _EXACTLY)
            count = np.nan_to_num(count, nan=0.0, posinf=self.blocks, neginf=0.0)
            return np.minimum(np.clip(count, 0, self.blocks).astype(np.int64), room)

        nothing = np.zeros_like(self.block_ms)
        return Room(
            fit(nothing, self.room.inner),
            fit(self.first_ms, self.room.first),
            fit(self.last_ms, self.room.last),
            fit(self.first_ms + self.last_ms, self.room.whole),
        )


@dataclass(frozen=True, slots=True)
class Hops:
    """Of shape (from, to): what a hop costs, infinite where there is none, and how long its link is busy."""

    cost: Floats
    busy: Floats

    def take(self, nodes: Ints) -> Hops:
        """The same between some nodes."""
        return Hops(self.cost[np.ix_(nodes, nodes)], self.busy[np.ix_(nodes, nodes)])


@dataclass(frozen=True, slots=True)
class SiteHops:
    """Hops between sites, of shape (from, to), and single links between nodes, sorted by the node that they lead to.

    `site` is each node's; `order` are nodes by site, those of site s from `first[s]` on. A node costs `leave` to go from and
    `reach` to come to. Links that lead to node `own_target[i]` begin at `own_first[i]` in `own_source` and `own_cost`.
    """

    site: Ints
    order: Ints
    first: Ints
    cost: Floats
    leave: Floats
    reach: Floats
    own_source: Ints
    own_target: Ints
    own_first: Ints
    own_cost: Floats

    def reversed(self) -> SiteHops:
        """The same for chains that are walked from their end."""
        counts = np.diff(np.append(self.own_first, len(self.own_source)))
        turned = replace(self, cost=self.cost.T, leave=self.reach, reach=self.leave)
        return turned.by_target(np.repeat(self.own_target, counts), self.own_source)

    def by_target(self, source: Ints, target: Ints) -> SiteHops:
        """The same with single links from `source` to `target`, whose costs are in their order."""
        order = np.argsort(target, kind="stable")
        targets, first = np.unique(target[order], return_index=True)
        return replace(
            self, own_source=source[order], own_target=targets, own_first=first, own_cost=self.own_cost[order]
        )


def survey_ground(costs: PlanCosts, model: ModelShape, nodes: Sequence[NodeCapacity]) -> Ground:
    """The arrays of these nodes, which are in alphabetical order."""
    settings, blocks = costs.settings, model.blocks
    alpha, names = settings.alpha, [node.name for node in nodes]
    block_ms = np.array([costs.times[name].block_s for name in names]) * 1e3
    head_ms = np.array([costs.times[name].head_s for name in names]) * 1e3
    entries, exits = [costs.entry(name) for name in names], [costs.exit(name) for name in names]
    trusted = np.array([node.trusted for node in nodes])
    # Imbalance is the bottleneck less a share of all compute, so every millisecond of compute counts for less.
    weight = alpha - settings.beta * costs.fair_share
    depth = np.array([0.0, *(exposed_share(LayerRange(0, stop), blocks) for stop in range(1, blocks + 1))])
    prefix = np.outer(np.arange(blocks + 1), weight * block_ms) + np.outer(settings.gamma_ms * depth, ~trusted)
    if settings.switch_horizon_tokens:
        moves = np.array([costs.switch_prefix_ms(name) for name in names]).T
        prefix += moves / settings.switch_horizon_tokens
    stage_price = _stage_prices(costs, nodes)
    longest = settings.longest_transmission_ms
    closed_in = [np.inf if price.measured_busy_ms > longest else 0.0 for price in entries]
    closed_out = [np.inf if price.measured_busy_ms > longest else 0.0 for price in exits]
    shielded = np.zeros((2, blocks + 1, len(names)))
    shielded[0] = _LATER_CUT_MS * np.arange(blocks + 1)[:, None]
    shielded[0, : max(settings.trusted_first_blocks, 1), ~trusted] = np.inf
    shielded[1, max(blocks - max(settings.trusted_last_blocks, 1) + 1, 0) :, ~trusted] = np.inf
    return Ground(
        names=tuple(names),
        prefix=prefix,
        entry=np.array([alpha * price.latency_ms for price in entries]) + stage_price + closed_in,
        exit=np.array([alpha * price.latency_ms for price in exits]) + weight * head_ms + closed_out,
        entry_busy=np.array([price.busy_ms for price in entries]),
        exit_busy=np.array([price.busy_ms for price in exits]),
        block_ms=block_ms,
        first_ms=np.zeros_like(block_ms),
        last_ms=head_ms,
        starts=shielded[0],
        stops=shielded[1],
        room=_room(costs, model, nodes),
    )


def _stage_prices(costs: PlanCosts, nodes: Sequence[NodeCapacity]) -> Floats:
    """What a stage costs because it is on a node, whatever its blocks."""
    affinity = np.array([costs.affinity_ms(node) for node in nodes])
    prices: Floats = affinity + _STAGE_MS + _LATER_NAME_MS * np.arange(len(nodes))
    return prices


def _room(costs: PlanCosts, model: ModelShape, nodes: Sequence[NodeCapacity]) -> Room:
    positions = kv_positions(costs.snapshot, costs.settings)
    whole = stage_memory_bytes(LayerRange(0, model.blocks), model, costs.settings, positions)
    per_block = (whole - model.embed_bytes - model.head_bytes) // model.blocks
    memory = np.array([node.memory_bytes for node in nodes], dtype=np.int64)

    def fit(extra: int) -> Ints:
        left = memory - extra
        count = left // per_block if per_block else np.where(left >= 0, model.blocks, 0)
        return np.clip(count, 0, model.blocks)

    head, embed = model.head_bytes, model.embed_bytes
    return Room(fit(0), fit(embed), fit(head), fit(embed + head))


def survey_hops(costs: PlanCosts, nodes: Sequence[NodeCapacity]) -> Hops:
    """Hops between these nodes: their own links, else those of their sites, else the default."""
    settings = costs.settings
    size = step_bytes(costs.snapshot)
    sites = {name: index for index, name in enumerate(sorted({node.site for node in nodes}))}
    index = {node.name: number for number, node in enumerate(nodes)}
    prices = _default_prices(len(sites), size, settings)
    _put_prices(prices, sites, costs.snapshot.site_links, size, settings)
    where = np.array([sites[node.site] for node in nodes])
    prices = prices[:, where[:, None], where]
    _put_prices(prices, index, costs.snapshot.links, size, settings)
    cost = _weighted(prices, settings)
    cost += _stage_prices(costs, nodes) + np.tril(np.full(cost.shape, _BACKWARDS_MS))
    np.fill_diagonal(cost, np.inf)
    return Hops(cost, prices[1])


def survey_site_hops(costs: PlanCosts, nodes: Sequence[NodeCapacity]) -> SiteHops:
    """Hops of nodes too many to look at in pairs."""
    settings, size = costs.settings, step_bytes(costs.snapshot)
    sites = {name: index for index, name in enumerate(sorted({node.site for node in nodes}))}
    prices = _default_prices(len(sites), size, settings)
    _put_prices(prices, sites, costs.snapshot.site_links, size, settings)
    site = np.array([sites[node.site] for node in nodes])
    order = np.argsort(site, kind="stable")
    reach = _stage_prices(costs, nodes)
    index = {node.name: number for number, node in enumerate(nodes)}
    own = [link for link in costs.snapshot.links if link.source in index and link.target in index]
    own_prices = [price_hop(link, settings.default_link, size, settings) for link in own]
    target = np.array([index[link.target] for link in own], dtype=np.int64)
    latency = np.array([price.latency_ms for price in own_prices])
    measured = np.array([price.measured_busy_ms for price in own_prices])
    barred = np.where(measured > settings.longest_transmission_ms, np.inf, 0.0)
    hops = SiteHops(
        site=site,
        order=order,
        first=np.searchsorted(site[order], np.arange(len(sites))),
        cost=_weighted(prices, settings),
        leave=np.zeros_like(reach),
        reach=reach,
        own_source=np.array([index[link.source] for link in own], dtype=np.int64),
        own_target=target,
        own_first=np.zeros(0, dtype=np.int64),
        own_cost=settings.alpha * latency + barred + reach[target],
    )
    return hops.by_target(hops.own_source, target)


def _weighted(prices: Floats, settings: PlanSettings) -> Floats:
    latency, _, measured = prices
    return np.where(measured > settings.longest_transmission_ms, np.inf, settings.alpha * latency)


def _default_prices(count: int, size: int, settings: PlanSettings) -> Floats:
    """Of shape (3, count, count): latency, busy and measured busy time of the default link."""
    price = price_hop(settings.default_link, settings.default_link, size, settings)
    return np.broadcast_to(np.array(price)[:, None, None], (3, count, count)).copy()


def _put_prices(
    prices: Floats, index: Mapping[str, int], links: Iterable[LinkCapacity], size: int, settings: PlanSettings
) -> None:
    """Prices of links with both ends in `index`: as `price_hop` has them, all at once but for forecasts."""
    everything = tuple(links)
    rows = np.array([index.get(link.source, -1) for link in everything], dtype=np.int64)
    columns = np.array([index.get(link.target, -1) for link in everything], dtype=np.int64)
    inside = np.flatnonzero((rows >= 0) & (columns >= 0))
    if not len(inside):
        return
    found = [everything[number] for number in inside.tolist()]
    rows, columns = rows[inside], columns[inside]
    default = price_hop(settings.default_link, settings.default_link, size, settings)
    half_default = default.latency_ms - default.busy_ms
    half = np.array([link.round_trip_s for link in found]) * 500
    measured = size / np.maximum([link.bytes_per_s for link in found], SLOWEST_BYTES_PER_S) * 1e3
    confidence = np.array([link.confidence for link in found])
    busy = lean(default.busy_ms, measured, confidence)
    prices[0, rows, columns] = lean(half_default, half, confidence) + busy
    prices[1, rows, columns] = busy
    prices[2, rows, columns] = measured
    for number in [number for number, link in enumerate(found) if link.forecast is not None]:
        prices[:, rows[number], columns[number]] = price_hop(found[number], settings.default_link, size, settings)
