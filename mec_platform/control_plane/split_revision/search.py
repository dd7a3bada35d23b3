"""The best plan for a snapshot, and how far it may be off. Counterpart: `checker` verifies the result without this code.

The cost of a plan is a sum over its stages and hops, plus a weight times its busiest resource. So plans are sorted into
intervals by that resource: with nothing busier than the interval's upper end, the cheapest chain of stages is found by a
sweep over cuts (`sweep`), and its sum plus the weight times the lower end is a bound for all plans in the interval. The
interval with the lowest bound is looked at again, cut smaller, until no bound is below the best plan that is known:

- a chain whose nodes hold one stage each is a plan, and the cheapest for every end of the interval from its own busiest
  resource up;
- a chain in which a node holds several stages is none, but its cost is a bound. Then the interval is halved, or the sweep
  is told to remember the nodes that it used twice.

Nodes that a bound shows to be in no better plan are left out first (`narrowing`); of more than `dense_nodes` the most
promising stay. What the search may do is counted, not timed: the same snapshot gives the same plan everywhere.

Ties: the current plan wins, then fewer stages, then what comes first in the alphabetical order of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np

from mec_platform.control_plane.split_revision.cost_model import (
    PlanCost,
    PlanCosts,
    kv_positions,
    stage_memory_bytes,
)
from mec_platform.control_plane.split_revision.narrowing import (
    additive_through,
    both_ways,
    crossings,
    least_bottleneck_ms,
    most_promising,
)
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.split_revision.sweep import (
    Bounds,
    Chain,
    Dense,
    Memories,
    bound_chains,
    find_chains,
    sweep_steps,
)
from mec_platform.control_plane.split_revision.terrain import Floats, Ground, Hops, Ints, survey_ground, survey_hops
from mec_platform.domain.capacity import NodeCapacity, Snapshot
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.model_shape import ModelShape
from mec_platform.domain.split_plan import SplitPlan, Stage

# Costs closer than this, as a share, are equal: sums in another order differ by less.
TIE = 1e-9
# A step of a sweep over so many numbers takes a few times as long as the calls that it consists of.
_CELLS = 40_000
_LEAST_AT_ONCE, _MOST_AT_ONCE = 5, 48
# Plans are first looked for among so many nodes: it takes longer than a bound.
_FIRST_LOOK = 16
# Of so few nodes all are remembered from the start.
_ALL_REMEMBERED = 4
# An interval is narrow where its width costs less than this share of what may still be won.
_NARROW = 0.3
# Busiest resources are a few times an even share mostly.
_MOSTLY_WITHIN = 12.0


@dataclass(frozen=True, slots=True)
class FoundPlan:
    """The best plan. It is the snapshot's own plan where no other is better, else its epoch is one higher.

    `gap` is the share of the cost that a plan not found might save at most: 0 where this is proven to be the best.
    """

    plan: SplitPlan
    cost: PlanCost
    gap: float = 0.0


_Best = tuple[tuple[Stage, ...], PlanCost]


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Nothing fits; `reason` says why in words."""

    reason: str


def describe_gap(gap: float) -> str:
    """A gap in words."""
    return "proven to be the best plan" if gap == 0 else f"at most {gap:.2%} above the best plan"


def best_plan(snapshot: Snapshot, settings: PlanSettings, exclude: frozenset[str] = frozenset()) -> FoundPlan | NoPlan:
    """The plan with the lowest total cost that keeps all limits, on nodes other than `exclude`."""
    model, current = snapshot.model, snapshot.plan
    if model is None:
        return NoPlan("no plan: no node has reported its model yet")
    if not snapshot.nodes:
        return NoPlan("no plan: no edge node is alive")
    costs = PlanCosts(snapshot, settings, exclude)
    nodes = tuple(sorted((node for node in snapshot.nodes if costs.is_usable(node)), key=lambda node: node.name))
    if not nodes:
        return NoPlan(_why_none_is_usable(snapshot, exclude))
    search = _Search(costs, model, nodes)
    search.run()
    if search.best is None:
        return NoPlan(_why_nothing_fits(costs, model, nodes))
    stages, cost = _in_order(search.best, costs, model)
    if current is not None and current.stages == stages and current.model == model.name:
        return FoundPlan(current, cost, search.gap)
    parent = 0 if current is None else current.epoch
    return FoundPlan(SplitPlan(parent + 1, parent, model.name, stages), cost, search.gap)


def _in_order(best: _Best, costs: PlanCosts, model: ModelShape) -> _Best:
    """Of plans that differ in nothing but which of two equal nodes comes first, the one in alphabetical order."""
    stages, cost = best
    current = costs.snapshot.plan
    if current is not None and current.stages == stages:
        return best
    for first in range(len(stages)):
        for later in range(first + 1, len(stages)):
            one, other = stages[first], stages[later]
            if one.node < other.node:
                continue
            swapped = list(stages)
            swapped[first], swapped[later] = replace(one, node=other.node), replace(other, node=one.node)
            new = costs.cost(swapped)
            if (
                new is None
                or new.total_ms > cost.total_ms * (1 + TIE)
                or not keeps_limits(tuple(swapped), costs, model)
            ):
                continue
            stages = tuple(swapped)
            cost = new
    return stages, cost


@dataclass(frozen=True, slots=True)
class _Interval:
    """Plans whose busiest resource is one of `levels[low:high + 1]`; what adds up of their cost is `additive` at least.

    `root` is the interval of the first cut that this one is a part of; `twice` are nodes that the chain of the bound uses
    more than once.
    """

    root: int
    low: int
    high: int
    additive: float
    bound: float
    twice: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    """Nodes that a search goes on with: `columns` are theirs among those that it began with."""

    columns: Ints
    ground: Ground
    hops: Hops

    def take(self, nodes: Ints) -> _Field:
        """Some of them."""
        return _Field(self.columns[nodes], self.ground.take(nodes), self.hops.take(nodes))


class _Search:
    """One search. `best` is what was found so far; what no plan costs less than is `bound`."""

    def __init__(self, costs: PlanCosts, model: ModelShape, nodes: tuple[NodeCapacity, ...]) -> None:
        self._costs, self._model, self._nodes = costs, model, nodes
        self._settings = costs.settings
        self._weight = self._settings.beta + self._settings.throughput
        # A change costs the same whatever is changed, so it is no matter of the sweeps: it is added to their bounds.
        horizon = self._settings.switch_horizon_tokens
        disturbs = horizon and not costs.switching.stays(())
        self._disturbance = costs.disturbance_ms() / horizon if disturbs else 0.0
        self._steps = self._settings.search_steps
        self._remembered: list[int] = []
        self._levels: Floats = np.array([inf])
        self._through: Floats = np.zeros((0, 0))
        self.best: _Best | None = None
        self.bound = inf

    @property
    def gap(self) -> float:
        """How far the best plan may be off, as a share of its cost."""
        total = self._best_ms
        if total <= 0 or self.bound >= self._enough:
            return 0.0
        return min((total - self.bound) / total, 1.0)

    @property
    def _best_ms(self) -> float:
        return inf if self.best is None else self.best[1].total_ms

    @property
    def _enough(self) -> float:
        """A bound from here on means that nothing better is left."""
        return self._best_ms - TIE * max(abs(self._best_ms), 1.0) if self.best else inf

    def run(self) -> None:
        """Searches until nothing better is left, or for as many steps as it may."""
        ground, nodes, left_out = survey_ground(self._costs, self._model, self._nodes), self._nodes, inf
        self._offer(self._current())
        if len(nodes) > self._settings.dense_nodes:
            stay, left_out = self._narrow(ground)
            ground, nodes = ground.take(stay), tuple(nodes[index] for index in stay.tolist())
        field = _Field(np.arange(len(nodes)), ground, survey_hops(self._costs, nodes))
        open_ = self._begin(field)
        self.bound = min(left_out, self._refine(field, open_))

    def _narrow(self, ground: Ground) -> tuple[Ints, float]:
        """The nodes to look at closely, of too many; and what a plan costs at least that uses any other."""
        self._levels = _levels(ground, None, self._weight)
        onwards, backwards = crossings(self._costs, self._nodes)
        roots = _first_cut(self._levels, _LEAST_AT_ONCE)
        most = self._levels[[each.high for each in roots]]
        front = Bounds(ground, most, onwards, Memories.of((), len(ground.names)))
        through = additive_through(front, ground, backwards, most, np.arange(len(roots)))
        least = (through + self._price_of(roots)[:, None]).min(axis=0) + self._disturbance
        stay = most_promising(least, ground, self._settings.dense_nodes, self._in_plan(ground))
        return stay, float(np.delete(least, stay).min(initial=inf))

    def _begin(self, field: _Field) -> list[_Interval]:
        """The first intervals, with bounds; and what plans cost at least in them that use a node."""
        ground, hops = field.ground, field.hops
        self._levels = _levels(ground, hops, self._weight)
        if len(ground.names) <= _ALL_REMEMBERED:
            self._remembered = list(range(len(ground.names)))
        roots = _first_cut(self._levels, _at_once(field, len(self._remembered)))
        most = self._levels[[each.high for each in roots]]
        front = Bounds(ground, most, Dense.within(hops, most), Memories.of(self._remembered, len(ground.names)))
        open_ = [
            left
            for interval, chain in zip(roots, front.chains(), strict=True)
            for left in self._judge(field, interval, chain)
        ]
        open_ = self._still_open(open_)
        self._through = np.full((len(roots), len(ground.names)), inf)
        if len(field.columns) <= _FIRST_LOOK:  # a bound for each node would take longer than it saves
            self._through[:] = -inf
            if self.best is None and open_:
                self._find(field, np.array([inf]))
            return self._still_open(open_)
        rows = np.array(sorted({each.root for each in open_}), dtype=np.int64)
        self._through[rows] = additive_through(front, ground, both_ways(hops)[1], most, rows) + self._disturbance
        self._look(field, open_)
        return self._still_open(open_)

    def _look(self, field: _Field, open_: list[_Interval]) -> None:
        """Plans on the most promising nodes in the most promising intervals, so that bounds have something to beat."""
        if not open_:
            return
        least = self._least_through(open_)
        few = field.take(most_promising(least, field.ground, _FIRST_LOOK, self._in_plan(field.ground)))
        parts = [part for interval in open_[:3] for part in _parts(interval, self._levels, 4)]
        most = self._levels[[part.high for part in parts]]
        chains = bound_chains(few.ground, few.hops, most, ())
        for chain in chains:
            if not chain.repeated():
                self._offer(_stages(few.ground, chain))
        ranked = sorted(range(len(parts)), key=lambda each: chains[each].additive + self._price_at(parts[each].high))
        if doubtful := [each for each in ranked[:4] if chains[each].repeated()]:
            self._find(few, most[doubtful])
        if self.best is None:
            self._find(field, np.array([inf]))

    def _find(self, field: _Field, most_ms: Floats) -> None:
        for chain in find_chains(field.ground, field.hops, most_ms):
            self._offer(_stages(field.ground, chain))

    def _refine(self, field: _Field, open_: list[_Interval]) -> float:
        """Looks at the intervals with the lowest bounds until none is below the best plan, or no step is left.

        Returns the bound that is left.
        """
        everything = field
        while open_ and self._steps > 0:
            stay = np.flatnonzero(self._least_through(open_) < self._enough)
            if len(stay) < 0.8 * len(field.columns):
                field = everything.take(stay)
            batch, rest = self._choose(field, open_)
            for interval, chain in zip(batch, self._sweep(field, batch), strict=True):
                rest += self._judge(field, interval, chain)
            open_ = self._still_open(rest)
        return min((each.bound for each in open_), default=inf)

    def _sweep(self, field: _Field, batch: list[_Interval]) -> list[Chain]:
        most = self._levels[[each.high for each in batch]]
        local = np.flatnonzero(np.isin(field.columns, self._remembered)).tolist()
        self._steps -= sweep_steps(field.ground, len(batch), len(local))
        return bound_chains(field.ground, field.hops, most, local)

    def _judge(self, field: _Field, interval: _Interval, chain: Chain) -> Iterable[_Interval]:
        """What is left of an interval now that the cheapest chain at its upper end is known."""
        if not chain.stages:
            return
        additive = max(chain.additive + self._disturbance, interval.additive)
        twice = tuple(field.columns[chain.repeated()].tolist())
        high = interval.high
        if not twice:
            self._offer(_stages(field.ground, chain))
            busiest = chain.busiest_ms(field.ground, field.hops)
            high = min(high, int(np.searchsorted(self._levels, busiest * (1 - TIE))) - 1)
        if high >= interval.low:
            bound = additive + self._price_at(interval.low)
            yield _Interval(interval.root, interval.low, high, additive, bound, twice)

    def _choose(self, field: _Field, open_: list[_Interval]) -> tuple[list[_Interval], list[_Interval]]:
        """What to look at next, and what to leave for later. Every look can tell something new.

        A wide interval is cut. Where it is narrow against what there is to win and its chain uses nodes twice, these are
        remembered if its bound is the lowest, for all chains from then on; remembering two nodes takes four times as long.
        """
        batch: list[_Interval] = []
        rest: list[_Interval] = []
        slots = _at_once(field, len(self._remembered))
        for interval in open_:
            new = [node for node in interval.twice if node not in self._remembered]
            width = self._price_at(interval.high) - self._price_at(interval.low)
            narrow = width <= _NARROW * (self._best_ms - interval.bound)
            if len(batch) >= slots or (new and narrow and batch):
                rest.append(interval)
            elif interval.low == interval.high or (interval.twice and narrow):
                self._remembered += new[:2] if new and narrow else []
                batch.append(interval)
            else:
                for part in _parts(interval, self._levels, max(2, slots // 4 if batch else slots // 2)):
                    batch.append(replace(part, bound=max(part.bound, part.additive + self._price_at(part.low))))
        return batch, rest

    def _still_open(self, intervals: list[_Interval]) -> list[_Interval]:
        """Those that may hold something better, the lowest bound first."""
        return sorted(
            (each for each in intervals if each.bound < self._enough), key=lambda each: (each.bound, each.low)
        )

    def _least_through(self, open_: list[_Interval]) -> Floats:
        """For each node of the first field, what a plan of these intervals costs at least that uses it."""
        if not open_:
            return np.full(self._through.shape[1], inf)
        through = self._through[[each.root for each in open_]] + self._price_of(open_)[:, None]
        least: Floats = through.min(axis=0)
        return least

    def _price_at(self, level: int) -> float:
        """What a level costs as the busiest resource."""
        return self._weight * float(self._levels[level]) if self._weight else 0.0

    def _price_of(self, intervals: list[_Interval]) -> Floats:
        return np.array([self._price_at(each.low) for each in intervals])

    def _in_plan(self, ground: Ground) -> Ints:
        plan = self._costs.snapshot.plan
        names = () if plan is None else plan.nodes
        return np.array([index for index, name in enumerate(ground.names) if name in names], dtype=np.int64)

    def _offer(self, stages: tuple[Stage, ...]) -> None:
        """Takes a plan for the best where it is better than what is known; the first of equals stays."""
        cost = self._costs.cost(stages)
        if cost is not None and cost.total_ms < self._enough:
            self.best = stages, cost

    def _current(self) -> tuple[Stage, ...]:
        """The stages of the current plan where they keep every limit of this snapshot, else none."""
        plan, model = self._costs.snapshot.plan, self._model
        if plan is None or plan.model != model.name or plan.stages[-1].layers.stop != model.blocks:
            return ()
        return plan.stages if keeps_limits(plan.stages, self._costs, model) else ()


def keeps_limits(stages: tuple[Stage, ...], costs: PlanCosts, model: ModelShape) -> bool:
    """Whether stages that cover the model keep the limits of memory, trust and links."""
    settings, positions = costs.settings, kv_positions(costs.snapshot, costs.settings)
    for stage in stages:
        node = costs.nodes.get(stage.node)
        if node is None or not costs.is_usable(node):
            return False
        if stage_memory_bytes(stage.layers, model, settings, positions) > node.memory_bytes:
            return False
        shallow = stage.layers.start < max(settings.trusted_first_blocks, 1)
        deep = stage.layers.stop > model.blocks - max(settings.trusted_last_blocks, 1)
        if not node.trusted and (shallow or deep):
            return False
    hops = [costs.between(a.node, b.node) for a, b in pairwise(stages)]
    ends = [costs.entry(stages[0].node), costs.exit(stages[-1].node)]
    return all(hop.measured_busy_ms <= settings.longest_transmission_ms for hop in (*hops, *ends))


def _levels(ground: Ground, hops: Hops | None, weight: float) -> Floats:
    """Every time that a busiest resource can take, in order: no plan is between two of them.

    Without `hops`, where there are too many, only how long stages take.
    """
    if not weight:
        return np.array([inf])
    stages = np.arange(1, ground.blocks + 1)[:, None] * ground.block_ms
    times = [stages, stages + ground.last_ms, ground.entry_busy, ground.exit_busy]
    times.append(np.array([inf]) if hops is None else hops.busy)
    levels = np.unique(np.concatenate([each.reshape(-1) for each in times]))
    return levels[levels >= least_bottleneck_ms(ground) * (1 - TIE)]


def _first_cut(levels: Floats, count: int) -> list[_Interval]:
    """All levels in up to `count` intervals, by how much longer they are than the shortest."""
    targets = levels[0] * np.geomspace(1, _MOSTLY_WITHIN, count)[1:]
    edges = np.searchsorted(levels, targets, side="right") - 1
    edges = np.unique(np.append(edges[edges >= 0], len(levels) - 1))
    lows = [0, *(edges[:-1] + 1).tolist()]
    return [
        _Interval(root, low, high, -inf, -inf)
        for root, (low, high) in enumerate(zip(lows, edges.tolist(), strict=True))
    ]


def _at_once(field: _Field, remembered: int) -> int:
    """How many thresholds to sweep at once: as many as take little longer than one."""
    count = len(field.ground.names)
    cells = count * (count + field.ground.blocks // 2) << remembered
    return min(max(_CELLS // cells, _LEAST_AT_ONCE >> min(remembered, 2)), _MOST_AT_ONCE)


def _parts(whole: _Interval, levels: Floats, count: int) -> list[_Interval]:
    """The interval cut into up to `count` parts, evenly by time."""
    low, high = whole.low, whole.high
    if low == high:
        return [whole]
    targets = np.linspace(levels[low], levels[high], count + 1)[1:]
    edges = np.unique(np.append(np.clip(np.searchsorted(levels, targets, side="right") - 1, low, high), high))
    lows = [low, *(edges[:-1] + 1).tolist()]
    return [replace(whole, low=start, high=stop) for start, stop in zip(lows, edges.tolist(), strict=True)]


def _stages(ground: Ground, chain: Chain) -> tuple[Stage, ...]:
    return tuple(Stage(ground.names[node], LayerRange(start, stop)) for node, start, stop in chain.stages)


def _why_none_is_usable(snapshot: Snapshot, exclude: frozenset[str]) -> str:
    taken = {name for plan in snapshot.replicas for name in plan.nodes}
    counts = {
        "have no artefact of the model for their target": sum(not node.runs_model for node in snapshot.nodes),
        "are in another chain of the deployment": sum(node.name in taken for node in snapshot.nodes),
        "are excluded": sum(node.name in exclude for node in snapshot.nodes),
    }
    why = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"no plan: none of {len(snapshot.nodes)} live nodes may be used: {why}"


def _why_nothing_fits(costs: PlanCosts, model: ModelShape, nodes: tuple[NodeCapacity, ...]) -> str:
    settings, positions = costs.settings, kv_positions(costs.snapshot, costs.settings)
    needed = stage_memory_bytes(LayerRange(0, model.blocks), model, settings, positions)
    offered = sum(node.memory_bytes for node in nodes)
    offer = "1 node offers" if len(nodes) == 1 else f"{len(nodes)} nodes offer"
    room = f"{offer} {offered / 1e6:.1f} MB, the model needs {needed / 1e6:.1f} MB"
    detail = (
        f"{model.blocks} blocks of {model.block_bytes / 1e6:.2f} MB, embedding {model.embed_bytes / 1e6:.1f} MB, "
        f"head {model.head_bytes / 1e6:.1f} MB, KV for {positions} positions"
    )
    trusted = [node for node in nodes if node.trusted]
    if not trusted:
        return f"no plan: none of {len(nodes)} live nodes is trusted, and the first and the last stage see tokens"
    if offered < needed:
        return f"no plan: {room} ({detail})"
    shallow = LayerRange(0, min(max(settings.trusted_first_blocks, 1), model.blocks))
    deep = LayerRange(max(model.blocks - max(settings.trusted_last_blocks, 1), 0), model.blocks)
    largest = max(node.memory_bytes for node in trusted)
    links = ""
    if settings.longest_transmission_ms < inf:
        links = f", and links that take more than {settings.longest_transmission_ms:g} ms for a step are not used"
    return (
        f"no plan: {room} ({detail}), but no cut fits them: embedding and blocks {shallow}, and the head and blocks {deep}, "
        f"must be on trusted nodes, of which there are {len(trusted)}, the largest with {largest / 1e6:.1f} MB{links}"
    )
