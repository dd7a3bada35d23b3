"""Which tilings are tried in which order, and when one counts as faster than another. Pure.

One parameter after the other is changed while the others stay at the best known, the most promising first: what the
vector registers hold, then what hides memory.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compiler.targets.row import CpuTarget

LEAST_GAIN = 0.01
"""A gain below this is none, however steady it was measured."""

MOST_OF_DEFAULT = 1.5
"""Tiles are at most so many times as large as the default's, which the registers hold: LLVM takes minutes over tiles that
spill, and they are slow."""

_TILE_ROWS = ((4, 2, 1), (6, 3, 1), (8, 4, 2, 1), (10, 5, 1), (12, 6, 3, 1), (2, 1), (3, 1))
_UNPACK_TILES = (1, 2, 4)
_PREFETCH_GROUPS = (4, 8, 16, 32)
_PREFETCH_ROWS = (1, 2, 4, 8, 16)
_TILE_QUERIES = (4, 6, 12, 24)

Pairs = Mapping[str, Sequence[tuple[float, float]]]
"""By case: seconds of the known and of the new one, measured one after the other."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`gain` is how many times as fast the new one is, over all cases alike; `noise` is twice the error of its logarithm."""

    gain: float
    noise: float

    @property
    def is_faster(self) -> bool:
        """Whether the gain is beyond the noise."""
        return math.log(self.gain) > max(math.log(1 + LEAST_GAIN), self.noise)


def compare(pairs: Pairs) -> Comparison:
    """Medians over pairs, so that what disturbs one call, or both of a pair, moves nothing."""
    gains, errors = [], []
    for measured in pairs.values():
        ratios = [math.log(known / new) for known, new in measured]
        middle = statistics.median(ratios)
        spread = 1.4826 * statistics.median(abs(ratio - middle) for ratio in ratios)
        gains.append(middle)
        errors.append(1.2533 * spread / math.sqrt(len(ratios)))
    noise = 2 * math.sqrt(sum(error**2 for error in errors)) / len(errors)
    return Comparison(math.exp(statistics.mean(gains)), noise)


def row_changes(best: CpuTarget, quantised: bool) -> Iterator[Callable[[CpuTarget], CpuTarget]]:
    """Changes of what multiplies rows, each to be applied to the best row at that moment."""
    most = MOST_OF_DEFAULT * best.tile_rows[0]
    yield from (_change("tile_rows", value) for value in _TILE_ROWS if value != best.tile_rows and value[0] <= most)
    if quantised:
        yield from (_change("unpack_tiles", value) for value in _UNPACK_TILES if value != best.unpack_tiles)
        yield from (_change("prefetch_groups", value) for value in _PREFETCH_GROUPS if value != best.prefetch_groups)
        yield from (_change("prefetch_rows", value) for value in _PREFETCH_ROWS if value != best.prefetch_rows)


def query_changes(best: CpuTarget) -> Iterator[CpuTarget]:
    """Rows with another count of query heads at once, which only whole artefacts show."""
    most = MOST_OF_DEFAULT * best.tile_queries
    values = (value for value in _TILE_QUERIES if value != best.tile_queries and value <= most)
    yield from (replace(best, tile_queries=value) for value in values)


def _change(name: str, value: object) -> Callable[[CpuTarget], CpuTarget]:
    return lambda row: replace(row, **{name: value})  # type: ignore[arg-type]
