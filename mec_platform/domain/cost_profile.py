"""What a batch costs on one node, as a formula with few coefficients: a machine's speed at loads it has not seen yet.

Kernels cut the rows of a batch into tiles of fixed sizes, largest first, and every tile takes the weights anew. Seconds of
a batch through one block:

    call_s + sum over its tiles of tile_s[size]
           + own_positions * own_position_s + shared_positions * shared_position_s

KV positions count once per row that attends to them: `own` those of rows alone in their session (decode steps), `shared`
those of rows that stand together (a chunk of a prompt), which read a page once for several rows. The head is the same
without positions.

A smaller batch is never expected to take longer than a larger one, although kernels do a little: 7 rows are three tiles,
8 are one. Counterpart: `mec profile` measures and fits, nodes report, Split Revision plans with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, isfinite
from typing import Literal

PROMPT_CHUNK_ROWS = 256
"""Rows in which prompts, and sessions that are replayed, come through a chain."""

Source = Literal["measured", "analytical"]

# What any hardware stays within; numbers beyond are mistakes, and would make sums overflow or loops long.
_LARGEST_TILE = 1024
_LONGEST_S = 1e6
_SHORTEST_BLOCK_S = 1e-12


@dataclass(frozen=True, slots=True)
class Batch:
    """`rows` rows; the KV positions that they attend to, their own included, summed over rows."""

    rows: int
    own_positions: float = 0.0
    shared_positions: float = 0.0


def prompt_batch(rows: int, start: int) -> Batch:
    """A chunk of one session: the tokens at positions `[start, start + rows)`."""
    return Batch(rows, shared_positions=rows * start + rows * (rows + 1) / 2)


def tile_counts(rows: int, tile_rows: tuple[int, ...]) -> tuple[int, ...]:
    """How many tiles of each size `rows` rows are cut into; `tile_rows` are the sizes, largest first."""
    counts = []
    for size in tile_rows:
        counts.append(rows // size)
        rows %= size
    return tuple(counts)


@dataclass(frozen=True, slots=True)
class RowCost:
    """What rows cost, without the positions that they attend to: seconds of a call, and of a tile of each size."""

    call_s: float
    tile_s: tuple[float, ...]

    def seconds(self, rows: int, tile_rows: tuple[int, ...]) -> float:
        """Of `rows` rows, or of fewer where those take longer: the largest tile repeats, so only the last few can."""
        first = max(1, rows - tile_rows[0] + 1)
        return max(
            self.call_s + sum(n * s for n, s in zip(tile_counts(count, tile_rows), self.tile_s, strict=True))
            for count in range(first, max(rows, 1) + 1)
        )


@dataclass(frozen=True, slots=True)
class CostProfile:
    """The coefficients of one model on one machine; `block` is one decoder block, `head` gives logits and a sample.

    `rms_error` is relative: of held-out points where it was measured, an assumption where it is analytical. `age_s` is
    how long ago it was measured, 0 where it is analytical.

    Raises:
        ValueError: a coefficient is negative or absurd, a block takes no time, or the tiles are no descending sizes down
            to 1 with a time each.
    """

    source: Source
    tile_rows: tuple[int, ...]
    block: RowCost
    own_position_s: float
    shared_position_s: float
    head: RowCost
    rms_error: float
    age_s: float = 0.0

    def __post_init__(self) -> None:
        descending = all(a > b for a, b in pairwise((_LARGEST_TILE + 1, *self.tile_rows)))
        if not descending or not self.tile_rows or self.tile_rows[-1] != 1:
            raise ValueError(
                f"a cost profile has tiles of descending sizes, {_LARGEST_TILE} at most, the last of one row"
            )
        if any(len(cost.tile_s) != len(self.tile_rows) for cost in (self.block, self.head)):
            raise ValueError("a cost profile has a time for each size of tile")
        positions = (self.own_position_s, self.shared_position_s)
        numbers = [*self.block.tile_s, *self.head.tile_s, self.block.call_s, self.head.call_s, *positions]
        if not all(0 <= number <= _LONGEST_S for number in (*numbers, self.rms_error)):
            raise ValueError(f"a cost profile has coefficients between zero and {_LONGEST_S:g}")
        if not (isfinite(self.age_s) and self.age_s >= 0):
            raise ValueError("a cost profile has an age of zero or more")
        if self.block.call_s + self.block.tile_s[-1] < _SHORTEST_BLOCK_S:
            raise ValueError("a cost profile has a block that takes time")

    def block_s(self, batch: Batch) -> float:
        """Seconds of one block; never less for more rows or positions."""
        return (
            self.block.seconds(batch.rows, self.tile_rows)
            + batch.own_positions * self.own_position_s
            + batch.shared_positions * self.shared_position_s
        )

    def head_s(self, rows: int) -> float:
        """Seconds of the head with sampling for `rows` rows."""
        return self.head.seconds(rows, self.tile_rows)

    def replay_block_s(self, tokens: float) -> float:
        """Seconds of one block for `tokens` tokens of one session from its start, in chunks of a prompt."""
        whole, rest = divmod(tokens, PROMPT_CHUNK_ROWS)
        rows = whole * self.block.seconds(PROMPT_CHUNK_ROWS, self.tile_rows)
        rows += self.block.seconds(ceil(rest), self.tile_rows) if rest else 0.0
        return rows + tokens * (tokens + 1) / 2 * self.shared_position_s
