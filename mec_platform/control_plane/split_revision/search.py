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
from math import inf

import numpy as np

from mec_platform.control_plane.split_revision.cost_model import (
    PlanCost,
    PlanCosts,
)
from mec_platform.control_plane.split_revision.intervals import TIE, Interval, busy_levels, cut_in_parts, first_cut
from mec_platform.control_plane.split_revision.limits import keeps_limits, why_none_is_usable, why_nothing_fits
from mec_platform.control_plane.split_revision.narrowing import (
    additive_through,
    both_ways,
    crossings,
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

# A step of a sweep over so many numbers takes a few times as long as the calls that it consists of.
_CELLS = 40_000
_LEAST_AT_ONCE, _MOST_AT_ONCE = 5, 48
# Plans are first looked for among so many nodes: it takes longer than a bound.
_FIRST_LOOK = 16
# A search that has not found any plan goes on for so many times as long.
_PATIENCE = 20
# Of so few nodes all are remembered from the start.
_ALL_REMEMBERED = 4
# An interval is narrow where its width costs less than this share of what may still be won.
_NARROW = 0.3


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
        return NoPlan(why_none_is_usable(snapshot, exclude))
    search = _Search(costs, model, nodes)
    search.run()
    if search.best is None:
        reason = why_nothing_fits(costs, model, nodes)
        return NoPlan(reason if search.bound == inf else f"{reason}; not all cuts could be looked at")
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
            if not len(stay):
                self.bound = left_out
                return
            ground, nodes = ground.take(stay), tuple(nodes[index] for index in stay.tolist())
        field = _Field(np.arange(len(nodes)), ground, survey_hops(self._costs, nodes))
        open_ = self._begin(field)
        self.bound = min(left_out, self._refine(field, open_))

    def _narrow(self, ground: Ground) -> tuple[Ints, float]:
        """The nodes to look at closely, of too many; and what a plan costs at least that uses any other."""
        self._levels = busy_levels(ground, None, self._weight)
        onwards, backwards = crossings(self._costs, self._nodes)
        roots = first_cut(self._levels, _LEAST_AT_ONCE)
        most = self._levels[[each.high for each in roots]]
        front = Bounds(ground, most, onwards, Memories.of((), len(ground.names)))
        through = additive_through(front, ground, backwards, most, np.arange(len(roots)))
        least = (through + self._price_of(roots)[:, None]).min(axis=0) + self._disturbance
        stay = most_promising(least, ground, self._settings.dense_nodes, self._in_plan(ground))
        return stay, float(np.delete(least, stay).min(initial=inf))

    def _begin(self, field: _Field) -> list[Interval]:
        """The first intervals, with bounds; and what plans cost at least in them that use a node."""
        ground, hops = field.ground, field.hops
        self._levels = busy_levels(ground, hops, self._weight)
        if len(ground.names) <= _ALL_REMEMBERED:
            self._remembered = list(range(len(ground.names)))
        roots = first_cut(self._levels, _at_once(field, len(self._remembered)))
        most = self._levels[[each.high for each in roots]]
        self._steps -= sweep_steps(ground, len(roots), len(self._remembered))
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
        self._steps -= sweep_steps(ground, len(rows), 0)
        self._through[rows] = additive_through(front, ground, both_ways(hops)[1], most, rows) + self._disturbance
        self._look(field, open_)
        return self._still_open(open_)

    def _look(self, field: _Field, open_: list[Interval]) -> None:
        """Plans on the most promising nodes in the most promising intervals, so that bounds have something to beat."""
        if not open_:
            return
        least = self._least_through(open_)
        few = field.take(most_promising(least, field.ground, _FIRST_LOOK, self._in_plan(field.ground)))
        parts = [part for interval in open_[:3] for part in cut_in_parts(interval, self._levels, 4)]
        most = self._levels[[part.high for part in parts]]
        self._steps -= sweep_steps(few.ground, len(parts), 0)
        chains = bound_chains(few.ground, few.hops, most, ())
        for chain in chains:
            if not chain.repeated():
                self._offer(_stages(few.ground, chain))
        if self.best is None:
            self._find(few, most)
        if self.best is None:
            self._find(field, np.array([inf]))

    def _find(self, field: _Field, most_ms: Floats) -> None:
        for chain in find_chains(field.ground, field.hops, most_ms):
            self._offer(_stages(field.ground, chain))

    def _refine(self, field: _Field, open_: list[Interval]) -> float:
        """Looks at the intervals with the lowest bounds until none is below the best plan, or no step is left.

        Returns the bound that is left.
        """
        everything = field
        last = -_PATIENCE * self._settings.search_steps  # without any plan yet
        while open_ and self._steps > (0 if self.best else last):
            stay = np.flatnonzero(self._least_through(open_) < self._enough)
            if len(stay) < 0.8 * len(field.columns):
                field = everything.take(stay)
            batch, rest = self._choose(field, open_)
            for interval, chain in zip(batch, self._sweep(field, batch), strict=True):
                rest += self._judge(field, interval, chain)
            open_ = self._still_open(rest)
        return min((each.bound for each in open_), default=inf)

    def _sweep(self, field: _Field, batch: list[Interval]) -> list[Chain]:
        most = self._levels[[each.high for each in batch]]
        local = np.flatnonzero(np.isin(field.columns, self._remembered)).tolist()
        self._steps -= sweep_steps(field.ground, len(batch), len(local))
        return bound_chains(field.ground, field.hops, most, local)

    def _judge(self, field: _Field, interval: Interval, chain: Chain) -> Iterable[Interval]:
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
            yield Interval(interval.root, interval.low, high, additive, bound, twice)

    def _choose(self, field: _Field, open_: list[Interval]) -> tuple[list[Interval], list[Interval]]:
        """What to look at next, and what to leave for later. Every look can tell something new.

        A wide interval is cut. Where it is narrow against what there is to win and its chain uses nodes twice, these are
        remembered if its bound is the lowest, for all chains from then on; remembering two nodes takes four times as long.
        """
        batch: list[Interval] = []
        rest: list[Interval] = []
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
                for part in cut_in_parts(interval, self._levels, max(2, slots // 4 if batch else slots // 2)):
                    batch.append(replace(part, bound=max(part.bound, part.additive + self._price_at(part.low))))
        return batch, rest

    def _still_open(self, intervals: list[Interval]) -> list[Interval]:
        """Those that may hold something better, the lowest bound first."""
        return sorted(
            (each for each in intervals if each.bound < self._enough), key=lambda each: (each.bound, each.low)
        )

    def _least_through(self, open_: list[Interval]) -> Floats:
        """For each node of the first field, what a plan of these intervals costs at least that uses it."""
        if not open_:
            return np.full(self._through.shape[1], inf)
        through = self._through[[each.root for each in open_]] + self._price_of(open_)[:, None]
        least: Floats = through.min(axis=0)
        return least

    def _price_at(self, level: int) -> float:
        """What a level costs as the busiest resource."""
        return self._weight * float(self._levels[level]) if self._weight else 0.0

    def _price_of(self, intervals: list[Interval]) -> Floats:
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


def _stages(ground: Ground, chain: Chain) -> tuple[Stage, ...]:
    return tuple(Stage(ground.names[node], LayerRange(start, stop)) for node, start, stop in chain.stages)


def _at_once(field: _Field, remembered: int) -> int:
    """How many thresholds to sweep at once: as many as take little longer than one."""
    count = len(field.ground.names)
    cells = count * (count + field.ground.blocks // 2) << remembered
    return min(max(_CELLS // cells, _LEAST_AT_ONCE >> min(remembered, 2)), _MOST_AT_ONCE)
