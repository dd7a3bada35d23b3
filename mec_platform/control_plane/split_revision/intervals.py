"""Plans sorted by how long their busiest resource takes: all times that it can take, in intervals with a bound for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np

from mec_platform.control_plane.split_revision.narrowing import least_bottleneck_ms
from mec_platform.control_plane.split_revision.terrain import Floats, Ground, Hops

# Times closer than this, as a share, are equal: sums in another order differ by less.
TIE = 1e-9
# Busiest resources are a few times an even share mostly.
_MOSTLY_WITHIN = 12.0


@dataclass(frozen=True, slots=True)
class Interval:
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


def busy_levels(ground: Ground, hops: Hops | None, weight: float) -> Floats:
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


def first_cut(levels: Floats, count: int) -> list[Interval]:
    """All levels in up to `count` intervals, by how much longer they are than the shortest."""
    targets = levels[0] * np.geomspace(1, _MOSTLY_WITHIN, count)[1:]
    edges = np.searchsorted(levels, targets, side="right") - 1
    edges = np.unique(np.append(edges[edges >= 0], len(levels) - 1))
    lows = [0, *(edges[:-1] + 1).tolist()]
    return [
        Interval(root, low, high, -inf, -inf) for root, (low, high) in enumerate(zip(lows, edges.tolist(), strict=True))
    ]


def cut_in_parts(whole: Interval, levels: Floats, count: int) -> list[Interval]:
    """The interval cut into up to `count` parts, evenly by time."""
    low, high = whole.low, whole.high
    if low == high:
        return [whole]
    targets = np.linspace(levels[low], levels[high], count + 1)[1:]
    edges = np.unique(np.append(np.clip(np.searchsorted(levels, targets, side="right") - 1, low, high), high))
    lows = [low, *(edges[:-1] + 1).tolist()]
    return [replace(whole, low=start, high=stop) for start, stop in zip(lows, edges.tolist(), strict=True)]
