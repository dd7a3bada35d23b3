"""All arithmetic on layer ranges: half-open ranges over decoder blocks, and cuts of a model into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """Half-open range `[start, stop)` over decoder blocks; never empty.

    Raises:
        ValueError: where `0 <= start < stop` does not hold.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a layer range needs 0 <= start < stop, not [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"

    def intersection(self, other: LayerRange) -> LayerRange | None:
        """The blocks that both ranges hold, or None."""
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return LayerRange(start, stop) if start < stop else None


def ranges_from_cuts(blocks: int, cuts: Sequence[int]) -> tuple[LayerRange, ...]:
    """Ranges between ascending inner cut positions: `ranges_from_cuts(30, [10, 20])` gives three ranges of ten."""
    edges = (0, *cuts, blocks)
    return tuple(LayerRange(start, stop) for start, stop in pairwise(edges))


def even_ranges(blocks: int, parts: int) -> tuple[LayerRange, ...]:
    """`parts` ranges whose lengths differ by one at most, the longer ones first."""
    short, longer = divmod(blocks, parts)
    cuts, position = [], 0
    for part in range(parts - 1):
        position += short + (part < longer)
        cuts.append(position)
    return ranges_from_cuts(blocks, cuts)
