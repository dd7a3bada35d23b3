"""The best plan for a snapshot. Counterpart: `checker` verifies the result without this code.

Method: chains are grown stage by stage. A partial chain is known by the nodes it uses, its last node and the blocks it
covers; of the rest of its past only two numbers matter: the additive cost so far (compute, hops, exposure) and its
largest stage, which the imbalance term needs. So per such state only chains that no other beats in both numbers are
kept, and a chain is dropped once even an optimistic finish could not beat the best complete plan. Up to
`exact_nodes` nodes that is exact. For more nodes it is a beam: the `beam_nodes` most promising nodes are looked at,
and per chain length and cut only the `beam_width` cheapest chains go on. A beam also runs ahead of the exact search,
for a bound that lets it drop more.

Ties: the current plan wins, then fewer stages, then what comes first in the alphabetical order of nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

from mec_platform.control_plane.split_revision.cost_model import (
    HopTimes,
    PlanCost,
    exposed_share,
    kv_bytes_per_block,
    plan_cost,
    stage_memory_bytes,
)
from mec_platform.control_plane.split_revision.node_times import NodeTimes, node_times
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage

# Costs closer than this are equal: sums in another order differ by less.
TIE_MS = 1e-9


@dataclass(frozen=True, slots=True)
class FoundPlan:
    """The best plan. It is the snapshot's own plan where no other is better, else its epoch is one higher."""

    plan: SplitPlan
    cost: PlanCost


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Nothing fits; `reason` says why in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Terrain:
    """What the search needs of a snapshot, by node index (nodes in alphabetical order), weighted and in ms."""

    model: ModelShape
    settings: PlanSettings
    nodes: tuple[NodeCapacity, ...]
    block_ms: tuple[float, ...]
    head_ms: tuple[float, ...]
    entry: tuple[float, ...]
    exit: tuple[float, ...]
    hop: tuple[tuple[float, ...], ...]
    compute_weight: float  # of one ms of compute: alpha, less what it adds to everyone's fair share
    depth_weight: tuple[float, ...]  # exposure of blocks [0, i) on untrusted nodes, weighted
    optimism: dict[tuple[int, int], _Optimism]  # by nodes used and last node; (0, 0) holds for every chain

    def longest(self, node: int, start: int) -> int:
        """How many blocks fit on the node from `start`, the head not counted."""
        offered = self.nodes[node].memory_bytes - (self.model.embed_bytes if start == 0 else 0)
        per_block = self.model.block_bytes + kv_bytes_per_block(self.model, self.settings)
        return max(offered, 0) // per_block if per_block else self.model.blocks

    def may_start(self, node: int, start: int) -> bool:
        """Whether trust allows the node a stage that starts there."""
        return self.nodes[node].trusted or start >= max(self.settings.trusted_first_blocks, 1)

    def may_finish(self, node: int, start: int) -> bool:
        """Whether the node may hold the rest of the model, head included."""
        rest = LayerRange(start, self.model.blocks)
        fits = stage_memory_bytes(rest, self.model, self.settings) <= self.nodes[node].memory_bytes
        return fits and self.nodes[node].trusted


@dataclass(frozen=True, slots=True)
class _Optimism:
    """For every cut, what the rest of the chain cannot be better than: its additive cost, and its largest stage."""

    cost: tuple[float, ...]
    largest: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Chain:
    """A partial chain, linked backwards. `cost` is the additive part; `largest` the longest stage in ms."""

    cost: float
    largest: float
    node: int
    stop: int
    used: int  # bit set of nodes
    before: _Chain | None


def best_plan(snapshot: Snapshot, settings: PlanSettings, exclude: frozenset[str] = frozenset()) -> FoundPlan | NoPlan:
    """The plan with the lowest total cost that keeps all limits, on nodes other than `exclude`."""
    if exclude:
        snapshot = replace(snapshot, nodes=tuple(node for node in snapshot.nodes if node.name not in exclude))
    model, current = snapshot.model, snapshot.plan
    if model is None:
        return NoPlan("no plan: no node has reported its model yet")
    if not snapshot.nodes:
        return NoPlan("no plan: no edge node is alive")
    terrain = _survey(snapshot, model, settings)
    incumbent = _current_stages(snapshot, model, settings)
    bound = inf
    if incumbent is not None and (cost := plan_cost(incumbent, snapshot, settings)) is not None:
        bound = cost.total_ms
    if len(terrain.nodes) <= settings.exact_nodes:
        ahead = _search(terrain, bound, exact=False)
        # The exact search must find this plan again, or one that ties with it and comes first.
        bound = bound if ahead is None else ahead.cost + settings.beta * ahead.largest + 2 * TIE_MS
        found = _search(terrain, bound, exact=True)
    else:
        found = _search(terrain, bound, exact=False)
    stages = incumbent if found is None else _stages(terrain, found)
    final = None if stages is None else plan_cost(stages, snapshot, settings)
    if stages is None or final is None:
        return NoPlan(_why_nothing_fits(terrain, len(snapshot.nodes)))
    if current is not None and current.stages == stages and current.model == model.name:
        return FoundPlan(current, final)
    parent = 0 if current is None else current.epoch
    return FoundPlan(SplitPlan(epoch=parent + 1, parent_epoch=parent, model=model.name, stages=stages), final)


def _survey(snapshot: Snapshot, model: ModelShape, settings: PlanSettings) -> _Terrain:
    hops = HopTimes.of(snapshot, settings)
    times = node_times(snapshot)
    nodes = _candidates(snapshot, model, settings, hops, times)
    names = [node.name for node in nodes]
    alpha = settings.alpha
    compute_weight = alpha - settings.beta / len(snapshot.nodes)
    entry = tuple(alpha * hops.entry(name) for name in names)
    exits = tuple(alpha * hops.exit(name) for name in names)
    hop = tuple(tuple(alpha * hops.between(a, b) if a != b else 0.0 for b in names) for a in names)
    block_ms = tuple(times[node.name].block_s * 1e3 for node in nodes)
    head_ms = tuple(times[node.name].head_s * 1e3 for node in nodes)
    shares = [exposed_share(LayerRange(0, stop), model.blocks) for stop in range(1, model.blocks + 1)]
    terrain = _Terrain(
        model=model,
        settings=settings,
        nodes=nodes,
        block_ms=block_ms,
        head_ms=head_ms,
        entry=entry,
        exit=exits,
        hop=hop,
        compute_weight=compute_weight,
        depth_weight=(0.0, *(settings.gamma_ms * share for share in shares)),
        optimism={},
    )
    terrain.optimism[0, 0] = _optimism(terrain, 0, None)
    if len(nodes) <= settings.exact_nodes:
        for used in range(1, 1 << len(nodes)):
            for last in range(len(nodes)):
                if used >> last & 1:
                    terrain.optimism[used, last] = _optimism(terrain, used, last)
    return terrain


def _optimism(terrain: _Terrain, used: int, last: int | None) -> _Optimism:
    """Bounds from the free nodes alone: the fastest computes all, the best hop is the only one, all share the work."""
    blocks = terrain.model.blocks
    free = [node for node in range(len(terrain.nodes)) if not used >> node & 1]
    ends = [terrain.compute_weight * terrain.head_ms[n] + terrain.exit[n] for n in free if terrain.nodes[n].trusted]
    if not ends:
        return _Optimism((inf,) * blocks, (0.0,) * blocks)
    hops = [terrain.hop[a][b] for a in range(len(terrain.nodes)) for b in free if a != b and last in (a, None)]
    fixed = min(hops, default=0.0) + min(ends)
    per_block = min(terrain.compute_weight * terrain.block_ms[node] for node in free)
    times = [terrain.block_ms[node] for node in free]
    shared = 1 / sum(1 / time for time in times) if min(times) > 0 else 0.0
    return _Optimism(
        tuple(fixed + per_block * (blocks - cut) for cut in range(blocks)),
        tuple(shared * (blocks - cut) for cut in range(blocks)),
    )


def _candidates(
    snapshot: Snapshot, model: ModelShape, settings: PlanSettings, hops: HopTimes, times: Mapping[str, NodeTimes]
) -> tuple[NodeCapacity, ...]:
    """All nodes where the search is exact; else the most promising, trusted and untrusted, with room for the model.

    Promising: the whole model's compute time there plus the hop from the gateways. Nodes of the current plan stay in,
    and nodes are added until half as much again as the model needs is offered.
    """
    if len(snapshot.nodes) <= settings.exact_nodes:
        return tuple(sorted(snapshot.nodes, key=lambda node: node.name))
    in_plan = set() if snapshot.plan is None else set(snapshot.plan.nodes)
    ranked = sorted(
        snapshot.nodes,
        key=lambda n: (
            n.name not in in_plan,
            model.blocks * times[n.name].block_s * 1e3 + hops.entry(n.name),
            n.name,
        ),
    )
    trusted = [node for node in ranked if node.trusted][: max(settings.beam_nodes // 2, 1)]
    chosen = trusted + [node for node in ranked if node not in trusted][: settings.beam_nodes - len(trusted)]
    wanted = 1.5 * stage_memory_bytes(LayerRange(0, model.blocks), model, settings)
    for node in ranked:
        if sum(n.memory_bytes for n in chosen) >= wanted:
            break
        if node not in chosen:
            chosen.append(node)
    return tuple(sorted(chosen, key=lambda node: node.name))


def _current_stages(snapshot: Snapshot, model: ModelShape, settings: PlanSettings) -> tuple[Stage, ...] | None:
    """The stages of the current plan where they keep every limit of this snapshot, else None."""
    plan = snapshot.plan
    if plan is None or plan.model != model.name or plan.stages[-1].layers.stop != model.blocks:
        return None
    for stage in plan.stages:
        node = snapshot.node(stage.node)
        if node is None or stage_memory_bytes(stage.layers, model, settings) > node.memory_bytes:
            return None
        shallow = stage.layers.start < max(settings.trusted_first_blocks, 1)
        deep = stage.layers.stop > model.blocks - max(settings.trusted_last_blocks, 1)
        if not node.trusted and (shallow or deep):
            return None
    return plan.stages


def _search(terrain: _Terrain, bound: float, exact: bool) -> _Chain | None:
    """The cheapest complete chain below `bound` (total ms), or None where there is none."""
    best: _Chain | None = None
    level: list[_Chain | None] = [None]
    for _ in terrain.nodes:
        for chain in level:
            for finished in _finishes(terrain, chain):
                total = finished.cost + terrain.settings.beta * finished.largest
                if total < bound - TIE_MS:
                    best, bound = finished, total
        level = [*_next_level(terrain, level, bound, exact)]
    return best


def _finishes(terrain: _Terrain, chain: _Chain | None) -> Iterator[_Chain]:
    """The chain with all remaining blocks and the head on one more node, for every node that may hold them."""
    start, used = (0, 0) if chain is None else (chain.stop, chain.used)
    blocks = terrain.model.blocks
    for node in range(len(terrain.nodes)):
        if used >> node & 1 or not terrain.may_start(node, start) or not terrain.may_finish(node, start):
            continue
        time = (blocks - start) * terrain.block_ms[node] + terrain.head_ms[node]
        before = terrain.entry[node] if chain is None else chain.cost + terrain.hop[chain.node][node]
        cost = before + terrain.compute_weight * time + terrain.exit[node]
        largest = time if chain is None else max(chain.largest, time)
        yield _Chain(cost, largest, node, blocks, used | 1 << node, chain)


def _next_level(terrain: _Terrain, level: list[_Chain | None], bound: float, exact: bool) -> Iterator[_Chain]:
    """Chains with one stage more that may still beat `bound`; in exact mode none that another one beats is kept."""
    states: defaultdict[tuple[int, int, int], list[_Chain]] = defaultdict(list)
    for chain in level:
        for longer in _extensions(terrain, chain, bound):
            _keep_undominated(states[longer.used, longer.node, longer.stop], longer)
    if exact:
        for chains in states.values():
            yield from chains
        return
    by_cut: defaultdict[int, list[_Chain]] = defaultdict(list)
    for (_, _, stop), chains in states.items():
        by_cut[stop] += chains
    beta = terrain.settings.beta
    for chains in by_cut.values():
        chains.sort(key=lambda chain: chain.cost + beta * chain.largest)
        yield from chains[: terrain.settings.beam_width]


def _extensions(terrain: _Terrain, chain: _Chain | None, bound: float) -> Iterator[_Chain]:
    """The chain with one more stage that leaves blocks over, for every node and cut."""
    start, used = (0, 0) if chain is None else (chain.stop, chain.used)
    so_far = 0.0 if chain is None else chain.largest
    beta, anywhere = terrain.settings.beta, terrain.optimism[0, 0]
    for node in range(len(terrain.nodes)):
        if used >> node & 1 or not terrain.may_start(node, start):
            continue
        arrived = terrain.entry[node] if chain is None else chain.cost + terrain.hop[chain.node][node]
        after = used | 1 << node
        rest = terrain.optimism.get((after, node), anywhere)
        block_ms, trusted = terrain.block_ms[node], terrain.nodes[node].trusted
        last = terrain.model.blocks - (1 if trusted else max(terrain.settings.trusted_last_blocks, 1))
        for stop in range(start + 1, min(start + terrain.longest(node, start), last) + 1):
            time = (stop - start) * block_ms
            cost = arrived + terrain.compute_weight * time
            if not trusted:
                cost += terrain.depth_weight[stop] - terrain.depth_weight[start]
            largest = max(so_far, time)
            if cost + rest.cost[stop] + beta * max(largest, rest.largest[stop]) < bound - TIE_MS:
                yield _Chain(cost, largest, node, stop, after, chain)


def _keep_undominated(chains: list[_Chain], new: _Chain) -> None:
    """Adds `new` unless a chain in the same state is as good in both numbers; drops those that it beats."""
    if any(old.cost <= new.cost and old.largest <= new.largest for old in chains):
        return
    chains[:] = [old for old in chains if old.cost < new.cost or old.largest < new.largest]
    chains.append(new)


def _stages(terrain: _Terrain, chain: _Chain) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    link: _Chain | None = chain
    while link is not None:
        start = 0 if link.before is None else link.before.stop
        stages.append(Stage(terrain.nodes[link.node].name, LayerRange(start, link.stop)))
        link = link.before
    return tuple(reversed(stages))


def _why_nothing_fits(terrain: _Terrain, alive: int) -> str:
    model, settings = terrain.model, terrain.settings
    needed = stage_memory_bytes(LayerRange(0, model.blocks), model, settings)
    offered = sum(node.memory_bytes for node in terrain.nodes)
    count = len(terrain.nodes)
    offer = "1 node offers" if count == 1 else f"{count} nodes offer"
    room = f"{offer} {offered / 1e6:.1f} MB, the model needs {needed / 1e6:.1f} MB"
    detail = (
        f"{model.blocks} blocks of {model.block_bytes / 1e6:.2f} MB, embedding {model.embed_bytes / 1e6:.1f} MB, "
        f"head {model.head_bytes / 1e6:.1f} MB, KV for {settings.kv_tokens_reserved} positions"
    )
    trusted = [node for node in terrain.nodes if node.trusted]
    if not trusted:
        return f"no plan: none of {alive} live nodes is trusted, and the first and the last stage see tokens"
    if offered < needed:
        return f"no plan: {room} ({detail})"
    shallow = LayerRange(0, min(max(settings.trusted_first_blocks, 1), model.blocks))
    largest = max(node.memory_bytes for node in trusted)
    return (
        f"no plan: {room} ({detail}), but no cut fits them: embedding and blocks {shallow} and the last stage must be "
        f"on trusted nodes, of which there are {len(trusted)}, the largest with {largest / 1e6:.1f} MB"
    )
