"""The cheapest chains under thresholds, by a sweep over cuts: all nodes, and several thresholds, in one array operation.

A sweep walks the model from its first block to its last. At each cut it knows, for every node, what it costs at least to
have all blocks so far done with the last stage there (`end`), and to be about to start a stage there (`arrival`): end comes
of the arrivals within the node's room, arrival of the ends over all hops.

Nothing in that says that a node holds one stage only. `bound_chains` lets nodes hold several, but for those that it is
told to remember: what it finds costs no more than any plan (decremental state space relaxation; Righini and Salani, 2008,
do the same for vehicle routes). `find_chains` keeps for each state the nodes of the one chain that it goes on with: what
it finds is a plan, and not always the cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from mec_platform.control_plane.split_revision.terrain import Floats, Ground, Hops, Ints

Placed = tuple[int, int, int]
"""A stage: its node (a column), its first block, and the block that it stops before."""


class Crossing(Protocol):
    """Hops between nodes under thresholds."""

    def arrive(self, end: Floats) -> Floats:
        """From costs per (threshold, memory, node) at the end of a stage to those at the start of the next."""


@dataclass(frozen=True, slots=True)
class Dense:
    """Every hop in an array of shape (thresholds, from, to), or (1, from, to) where thresholds rule none out."""

    cost: Floats

    @classmethod
    def within(cls, hops: Hops, most_ms: Floats) -> Dense:
        """Hops whose link is busy for no longer than the thresholds."""
        if not (hops.busy > most_ms.min()).any():
            return cls(hops.cost[None])
        return cls(np.where(hops.busy > most_ms[:, None, None], np.inf, hops.cost))

    def arrive(self, end: Floats) -> Floats:
        """The cheapest hop to each node."""
        arrived: Floats = np.minimum.reduce(end[..., None] + self.cost[:, None], axis=2)
        return arrived


@dataclass(frozen=True, slots=True)
class Chain:
    """What a sweep found for one threshold: stages, and what adds up of their cost. No stages: there is no chain."""

    additive: float
    stages: tuple[Placed, ...]

    def repeated(self) -> list[int]:
        """Nodes that hold more than one stage."""
        nodes = [node for node, _, _ in self.stages]
        return sorted({node for node in nodes if nodes.count(node) > 1})

    def busiest_ms(self, ground: Ground, hops: Hops) -> float:
        """How long the busiest stage or link is busy."""
        first, last = self.stages[0][0], self.stages[-1][0]
        times = [ground.block_ms[node] * (stop - start) for node, start, stop in self.stages]
        times[0] += ground.first_ms[first]
        times[-1] += ground.last_ms[last]
        links = [hops.busy[a[0], b[0]] for a, b in pairwise(self.stages)]
        return float(max(*times, *links, ground.entry_busy[first], ground.exit_busy[last]))


@dataclass(frozen=True, slots=True)
class Memories:
    """Which sets of remembered nodes a chain may have used; a set is a row, its bits are of `nodes` in order.

    `before[set, node]` is the set that a chain had before a stage on the node, -1 where the node cannot come to that set.
    """

    nodes: tuple[int, ...]
    before: Ints

    @classmethod
    def of(cls, nodes: Sequence[int], count: int) -> Memories:
        """The sets over `nodes`, of `count` nodes in all."""
        sets = np.arange(1 << len(nodes))
        before = np.repeat(sets[:, None], count, axis=1)
        for bit, node in enumerate(nodes):
            before[:, node] = np.where(sets >> bit & 1, sets ^ 1 << bit, -1)
        return cls(tuple(nodes), before)


class Bounds:
    """A sweep in which only remembered nodes hold one stage at most. Arrays are (cut, threshold, memory, node).

    `chains` is for sweeps over `Dense` hops.
    """

    def __init__(self, ground: Ground, most_ms: Floats, crossing: Crossing, memories: Memories) -> None:
        self._ground, self._crossing, self._memories = ground, crossing, memories
        self._room = ground.room_within(most_ms)
        self._most_ms = most_ms
        shape = (ground.blocks + 1, len(most_ms), *memories.before.shape)
        self._opened, self.end = np.full(shape, np.inf), np.full(shape, np.inf)
        self._sweep()

    @property
    def arrival(self) -> Floats:
        """What it costs to be about to start a stage."""
        arrival: Floats = self._opened + self._ground.prefix[:, None, None, :]
        return arrival

    def additive(self) -> Floats:
        """What adds up at least of any plan's cost, for each threshold."""
        least: Floats = (self.end[-1] + self._ground.exit).min(axis=(1, 2))
        return least

    def chains(self) -> list[Chain]:
        """The cheapest chain under each threshold."""
        whole = self.end[-1] + self._ground.exit
        flat = whole.reshape(len(whole), -1)
        best = flat.argmin(axis=1)
        found = []
        for threshold, state in enumerate(best.tolist()):
            additive = float(flat[threshold, state])
            memory, node = divmod(state, whole.shape[2])
            found.append(Chain(additive, self._walk_back(threshold, memory, node) if additive < np.inf else ()))
        return found

    def _sweep(self) -> None:
        """Fills `end`, and `_opened`: what a stage from a cut costs, less the prefix of where it stops."""
        ground, room, before, blocks = self._ground, self._room, self._memories.before, self._ground.blocks
        opened, end, crossing = self._opened, self.end, self._crossing
        columns, source = np.arange(len(ground.names)), np.maximum(before, 0)
        barred = np.where(before < 0, np.inf, 0.0)
        opening, closing = ground.starts - ground.prefix, ground.stops + ground.prefix
        # A chain's first stage leads from the empty set, which is row 0, to the node's own.
        entry = ground.entry + opening[0] + _closed(ground.entry_busy, self._most_ms)
        opened[0] = np.where(before == 0, entry[:, None, :], np.inf)
        stops = np.arange(blocks)[:, None, None, None]
        first = np.where(stops > room.first[:, None, :], np.inf, opened[0])
        live = np.full(opened.shape, np.inf)  # what may still stop at the cut; row 0 stays infinite
        live_flat = live.reshape(-1)
        expired = _expired(np.broadcast_to(room.inner[:, None, :], live.shape[1:]).reshape(-1), blocks)
        for stop in range(1, blocks):
            live_flat[expired[stop]] = np.inf
            cheapest = np.minimum.reduce(live[:stop], axis=0)
            np.minimum(cheapest, first[stop], out=cheapest)
            np.add(cheapest, closing[stop], out=end[stop])
            arrived = crossing.arrive(end[stop])
            if len(before) > 1:
                arrived = arrived[:, source, columns] + barred
            np.add(arrived, opening[stop], out=opened[stop])
            live[stop] = opened[stop]
        length = blocks - np.arange(blocks)[:, None, None]
        outside = np.where(length > room.last, np.inf, 0.0)
        outside[0] = np.where(blocks > room.whole, np.inf, 0.0)
        done = closing[blocks] + _closed(ground.exit_busy, self._most_ms)
        end[blocks] = (opened[:-1] + outside[:, :, None, :]).min(axis=0) + done[:, None, :]

    def _walk_back(self, threshold: int, memory: int, node: int) -> tuple[Placed, ...]:
        ground, stages, stop = self._ground, [], self._ground.blocks
        room = self._room
        while True:
            inner, first = (room.last, room.whole) if stop == ground.blocks else (room.inner, room.first)
            costs = self._opened[:stop, threshold, memory, node].copy()
            costs[1 : max(stop - int(inner[threshold, node]), 1)] = np.inf
            if stop > first[threshold, node]:
                costs[0] = np.inf
            start = int(costs.argmin())
            stages.append((node, start, stop))
            if start == 0:
                return tuple(reversed(stages))
            memory = int(self._memories.before[memory, node])
            node, stop = self._before(start, threshold, memory, node), start

    def _before(self, cut: int, threshold: int, memory: int, node: int) -> int:
        assert isinstance(self._crossing, Dense)  # who asks for chains has all hops at hand
        hops = self._crossing.cost[min(threshold, len(self._crossing.cost) - 1), :, node]
        return int((self.end[cut, threshold, memory] + hops).argmin())


def bound_chains(ground: Ground, hops: Hops, most_ms: Floats, remembered: Sequence[int]) -> list[Chain]:
    """For each threshold a chain that costs no more than any plan with nothing busier; only some nodes are remembered."""
    memories = Memories.of(remembered, len(ground.names))
    return Bounds(ground, most_ms, Dense.within(hops, most_ms), memories).chains()


def find_chains(ground: Ground, hops: Hops, most_ms: Floats) -> list[Chain]:
    """For each threshold a chain with nothing busier in which every node holds one stage at most, if one was found."""
    return _Finder(ground, most_ms, Dense.within(hops, most_ms).cost).chains()


def _expired(room: Ints, blocks: int) -> Ints:
    """For each stop and column, where in an array of (start, column) the stage stands that has become too long there.

    Those that never were are in row 0.
    """
    columns = np.arange(room.size)
    starts = np.arange(blocks)[:, None] - 1 - room
    expired: Ints = np.maximum(starts * room.size, 0) + columns
    return expired


class _Finder:
    """A sweep with one chain per state. The nodes that a chain has used are a row of infinities."""

    def __init__(self, ground: Ground, most_ms: Floats, hop: Floats) -> None:
        self._ground, self._hop, self._most_ms = ground, hop, most_ms
        self._room = ground.room_within(most_ms)
        shape = (ground.blocks + 1, len(most_ms), len(ground.names))
        self._origin = np.zeros(shape, dtype=np.int64)  # the node before a stage that starts at a cut
        self._opened = np.zeros(shape, dtype=np.int64)  # the start of a stage that stops at a cut

    def chains(self) -> list[Chain]:
        """What was found for each threshold."""
        cost = self._sweep() + self._ground.exit + _closed(self._ground.exit_busy, self._most_ms)
        found = []
        for threshold, node in enumerate(cost.argmin(axis=1).tolist()):
            additive = float(cost[threshold, node])
            found.append(Chain(additive, self._walk_back(threshold, node) if additive < np.inf else ()))
        return found

    def _sweep(self) -> Floats:
        ground, room, blocks = self._ground, self._room, self._ground.blocks
        count = len(ground.names)
        shape = room.inner.shape
        thresholds, columns, nodes = np.arange(shape[0])[:, None], np.arange(room.inner.size), np.arange(count)
        open_from = np.full((len(columns), blocks), np.inf)
        used = np.zeros((blocks, len(columns), count))
        itself = np.where(np.eye(count, dtype=bool), np.inf, 0.0)
        used[0] = np.tile(itself, (shape[0], 1))
        arrival = ground.entry + ground.starts[0] + _closed(ground.entry_busy, self._most_ms)
        inner, first = room.inner.reshape(-1), room.first.reshape(-1)
        for stop in range(1, blocks + 1):
            open_from[:, stop - 1] = (arrival - ground.prefix[stop - 1]).reshape(-1)
            if stop == blocks:
                inner, first = room.last.reshape(-1), room.whole.reshape(-1)
                starts = np.arange(blocks)
                open_from[(stop - starts > inner[:, None]) & (starts > 0)] = np.inf
            expired = np.flatnonzero(stop - 1 - inner > 0)
            open_from[expired, stop - 1 - inner[expired]] = np.inf
            open_from[stop > first, 0] = np.inf
            start = open_from[:, :stop].argmin(axis=1)
            self._opened[stop] = start.reshape(shape)
            cost: Floats = open_from[columns, start].reshape(shape) + (ground.prefix[stop] + ground.stops[stop])
            if stop == blocks:
                return cost
            have = used[start, columns].reshape(*shape, count)
            offers = have + self._hop
            offers += cost[:, :, None]
            before = offers.argmin(axis=1)
            self._origin[stop] = before
            arrival = offers[thresholds, before, nodes] + ground.starts[stop]
            used[stop] = (have[thresholds, before] + itself).reshape(-1, count)
        raise AssertionError("a model has blocks")

    def _walk_back(self, threshold: int, node: int) -> tuple[Placed, ...]:
        stages: list[Placed] = []
        stop = self._ground.blocks
        while True:
            start = int(self._opened[stop, threshold, node])
            stages.append((node, start, stop))
            if start == 0:
                return tuple(reversed(stages))
            node, stop = int(self._origin[start, threshold, node]), start


def _closed(busy_ms: Floats, most_ms: Floats) -> Floats:
    """Infinite for each threshold and node whose links would be busy for longer, else 0."""
    closed: Floats = np.where(busy_ms > most_ms[:, None], np.inf, 0.0)
    return closed


# What the calls of one cut take whatever they are over, in steps.
_CALLS = 16_000


def sweep_steps(ground: Ground, thresholds: int, remembered: int) -> int:
    """What a bounding sweep does, in steps of its innermost loops: about a thousand million take a second."""
    count = len(ground.names)
    return ground.blocks * (_CALLS + (thresholds * count * (count + ground.blocks // 2) << remembered))
