"""Fits a cost profile to measured times, and judges it by the points it has not seen. Pure.

Least squares of relative errors with coefficients of zero or more. There are few of them, so that every set that could
be zero is tried: the best solution without a negative coefficient is the exact one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import numpy as np

from mec_apps.cli.profile.sweep import Point
from mec_platform.domain.cost_profile import CostProfile, RowCost, tile_counts

HELD_OUT_BOUND = 0.15
"""Largest relative error at a point that the fit has not seen."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A point with its measured and predicted seconds."""

    point: Point
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Relative; positive where the prediction is too long."""
        return self.predicted_s / self.measured_s - 1


def fit_profile(seconds: Mapping[Point, float], tile_rows: tuple[int, ...]) -> CostProfile:
    """The profile of all points that are not held out; its `rms_error` is that of those that are."""
    seen = {point: s for point, s in seconds.items() if not point.held_out}
    block, own, shared = _solve({point: s for point, s in seen.items() if point.work != "head"}, tile_rows)
    head, _, _ = _solve({point: s for point, s in seen.items() if point.work == "head"}, tile_rows)
    profile = CostProfile("measured", tile_rows, block, own, shared, head, rms_error=0.0)
    squares = [each.error**2 for each in held_out(judge(profile, seconds))]
    return replace(profile, rms_error=sqrt(sum(squares) / len(squares)))


def judge(profile: CostProfile, seconds: Mapping[Point, float]) -> tuple[Judged, ...]:
    """Every point beside its prediction."""
    return tuple(
        Judged(point, s, profile.head_s(point.rows) if point.work == "head" else profile.block_s(point.batch))
        for point, s in seconds.items()
    )


def held_out(judged: Sequence[Judged]) -> tuple[Judged, ...]:
    """The points that the fit has not seen."""
    return tuple(each for each in judged if each.point.held_out)


def largest_error(judged: Sequence[Judged]) -> float:
    """Of the held-out points, without its sign."""
    return max(abs(each.error) for each in held_out(judged))


def _solve(seconds: Mapping[Point, float], tile_rows: tuple[int, ...]) -> tuple[RowCost, float, float]:
    """What rows cost, and a position of either kind."""
    terms = np.array([_terms(point, tile_rows) for point in seconds], np.float64)
    weighted = terms / np.array(list(seconds.values()))[:, None]
    used = np.flatnonzero(terms.any(axis=0))
    scale = weighted[:, used].max(axis=0)
    found = np.zeros(terms.shape[1])
    found[used] = least_squares(weighted[:, used] / scale, np.ones(len(weighted))) / scale
    call, *tiles, own, shared = found.tolist()
    return RowCost(call, tuple(tiles)), own, shared


def _terms(point: Point, tile_rows: tuple[int, ...]) -> tuple[float, ...]:
    batch = point.batch
    positions = (0, 0) if point.work == "head" else (batch.own_positions, batch.shared_positions)
    return (1, *tile_counts(batch.rows, tile_rows), *positions)


def least_squares(terms: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The x >= 0 with the least |terms @ x - wanted|; `terms` is [n, few], each column with something in it."""
    best, least = np.zeros(terms.shape[1]), float(np.sum(wanted**2))
    for used in _subsets(terms.shape[1]):
        solution = np.linalg.lstsq(terms[:, used], wanted, rcond=None)[0]
        if solution.min() < 0:
            continue
        rest = float(np.sum((terms[:, used] @ solution - wanted) ** 2))
        if rest < least:
            best, least = np.zeros(terms.shape[1]), rest
            best[used] = solution
    return best


def _subsets(count: int) -> Iterator[list[int]]:
    for size in range(1, count + 1):
        yield from (list(chosen) for chosen in combinations(range(count), size))
