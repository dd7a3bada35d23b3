"""Rows of activations times a packed weight, batch-invariant: every row sums in the same order in every tile size.

Packed weight of a layer with N rows and K columns, unsigned q and w = d*q + m per group of 32 columns:
  q  uint32 [N/32, K/32, WORDS, 2, 16]  lane (t, n) holds row 32*b + 16*t + n. WORDS = 8: a byte per weight, word j
                                        holds columns 4j..4j+3. WORDS = 4: so the low nibbles; high: 16 columns on
  s  float16 [N/32, K/32, 4, 16]        d of tile 0, d of tile 1, m of tile 0, m of tile 1
or, unquantised: float32 [N/32, K, 32].

`multiplier` sends each finished strip of 32 outputs of a row to a sink. Tiles of many rows reuse each weight that was
loaded; rows that fill no tile go through smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.dot import DOTS
from compiler.kernels.vector import (
    LANES,
    f32,
    fma,
    high_nibbles,
    lanes,
    low_nibbles,
    prefetch,
    splat,
    widen,
    widen_bf16,
)
from compiler.quantisation import INTEGER_BITS
from compiler.targets.row import CpuTarget


@dataclass(frozen=True)
class PackedShape:
    """Shapes of a packed weight, on any hardware; `words` is 0 where weights are floats."""

    words: int
    q_dtype: str
    scaled: bool

    def q_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of q for one matrix."""
        if not self.scaled:
            return (rows // 32, columns, 32)
        return (rows // 32, columns // 32, self.words, 2, 16)

    def s_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of s for one matrix; one unused element per matrix where weights are not scaled."""
        return (rows // 32, columns // 32, 4, 16) if self.scaled else (1,)


@dataclass(frozen=True)
class WeightFormat(PackedShape):
    """A packed weight, and the code over it.

    `tiles[rows]` multiply that many rows, largest first; the largest is used from `enough` rows on. `unpack`, where there
    is one, makes bytes of a strip's nibbles, which the largest tile takes. `read` gives one unscaled weight as a float.
    """

    tiles: dict[int, Any]
    enough: int
    unpack: Any = None
    read: Any = None

    def unpacked_shape(self, columns: int) -> tuple[int, ...]:
        """Shape of a thread's scratch for an unpacked strip, as q of one layer and strip; one word where unused."""
        return (1, 1, columns // 32 if self.unpack else 1, 8, 2, 16)


def _byte_tile(rows: int, words: int, dot, ahead: int):
    """`rows` x 32 outputs; weights are the bytes of w, or its nibbles (words = 4), asked for `ahead` groups early if any."""

    @T.inline
    def add_products(left, right, first, second, values, row, column):
        """Four columns of every row times both tiles of the strip, whose bytes `first` and `second` are."""
        for r in T.unroll(rows):
            left[lanes(r * 16)] = dot(left[lanes(r * 16)], first, values[row + r, lanes(column, 4)])
            right[lanes(r * 16)] = dot(right[lanes(r * 16)], second, values[row + r, lanes(column, 4)])

    @T.inline
    def add_packed(left, right, first, second, values, row, column):
        """The same for words as they are packed."""
        if words == 8:
            add_products(left, right, first, second, values, row, column)
        else:
            add_products(left, right, low_nibbles(first), low_nibbles(second), values, row, column)
            add_products(left, right, high_nibbles(first), high_nibbles(second), values, row, column + 16)

    @T.inline
    def add_scaled(y, whole, t, s, layer, block, g, scales, row):
        for r in T.unroll(rows):
            y[lanes(r * 16)] = fma(
                T.cast(whole[lanes(r * 16)], "float32x16"),
                widen(s[layer, block, g, t, lanes(0)]) * splat(scales[row + r, g * 2]),
                fma(widen(s[layer, block, g, 2 + t, lanes(0)]), splat(scales[row + r, g * 2 + 1]), y[lanes(r * 16)]),
            )

    @T.inline
    def tile(left_y, right_y, w, w_layer, w_block, s, layer, block, groups, values, scales, row):
        left = T.alloc_buffer((rows * 16,), "int32")
        right = T.alloc_buffer((rows * 16,), "int32")
        for g in T.serial(groups):
            for r in T.unroll(rows):
                left[lanes(r * 16)] = splat(T.int32(0))
                right[lanes(r * 16)] = splat(T.int32(0))
            for term in T.unroll(2):
                for j in T.unroll(words):
                    if term == 0 and ahead > 0:
                        for t in T.unroll(2):
                            T.evaluate(prefetch(T.address_of(w[w_layer, w_block, g + ahead, j, t, 0])))
                    add_packed(
                        left,
                        right,
                        w[w_layer, w_block, g, j, 0, lanes(0)],
                        w[w_layer, w_block, g, j, 1, lanes(0)],
                        values,
                        row,
                        g * 64 + term * 32 + j * 4,
                    )
                if term == 0:
                    for r in T.unroll(rows):
                        left[lanes(r * 16)] = T.shift_left(left[lanes(r * 16)], splat(T.int32(8)))
                        right[lanes(r * 16)] = T.shift_left(right[lanes(r * 16)], splat(T.int32(8)))
            add_scaled(left_y, left, 0, s, layer, block, g, scales, row)
            add_scaled(right_y, right, 1, s, layer, block, g, scales, row)

    return tile


def _nibble_unpacker(ahead: int):
    @T.inline
    def unpack(w, u, layer, block, groups):
        for g in T.serial(groups):
            for j in T.unroll(4):
                for t in T.unroll(2):
                    T.evaluate(prefetch(T.address_of(w[layer, block, g + ahead, j, t, 0])))
                    u[0, 0, g, j, t, lanes(0)] = low_nibbles(w[layer, block, g, j, t, lanes(0)])
                    u[0, 0, g, 4 + j, t, lanes(0)] = high_nibbles(w[layer, block, g, j, t, lanes(0)])

    return unpack


def _float_tile(rows: int, to_float):
    @T.inline
    def tile(left_y, right_y, w, w_layer, w_block, s, layer, block, groups, values, scales, row):
        for k in T.serial(groups * 32):
            for r in T.unroll(rows):
                left_y[lanes(r * 16)] = fma(
                    to_float(w[w_layer, w_block, k, lanes(0)], LANES), splat(values[row + r, k]), left_y[lanes(r * 16)]
                )
                right_y[lanes(r * 16)] = fma(
                    to_float(w[w_layer, w_block, k, lanes(16)], LANES),
                    splat(values[row + r, k]),
                    right_y[lanes(r * 16)],
                )

    return tile


# dtype, and from it to float32 for the count of lanes given
_FLOATS = {"f32": ("float32", lambda a, _: a), "f16": ("float16", widen), "bf16": ("uint16", widen_bf16)}


def weight_format(stored: str, target: CpuTarget) -> WeightFormat:
    """The format of one `quantisation.Storage`, with the tiles and the instructions of `target`."""
    largest, ahead = target.tile_rows[0], target.prefetch_groups
    if stored in _FLOATS:
        dtype, to_float = _FLOATS[stored]
        tiles = {rows: _float_tile(rows, to_float) for rows in target.tile_rows}
        return WeightFormat(0, dtype, False, tiles, largest, read=lambda a: to_float(a, 1))
    words = INTEGER_BITS[stored]
    dot = DOTS[target.dot][words]  # nibbles that were unpacked are bytes that stay below 16

    def tile(rows: int, layout_words: int):
        return _byte_tile(rows, layout_words, dot, ahead if rows <= target.prefetch_rows else 0)

    tiles = {rows: tile(rows, words) for rows in target.tile_rows}
    if words == 8:
        return WeightFormat(words, "uint32", True, tiles, largest)
    enough = target.unpack_tiles * largest
    return WeightFormat(words, "uint32", True, tiles | {largest: tile(largest, 8)}, enough, _nibble_unpacker(ahead))


def multiplier(weights: WeightFormat, sink):
    """Multiplies all rows with one block of 32 outputs.

    Calls `sink(left, right, offset, row, block, thread)` for each row: its outputs are left and right[offset : offset+16].
    """
    largest, *smaller = weights.tiles  # each divides the one before; the last is 1
    enough = weights.enough

    def tile_of(rows: int):
        @T.inline
        def run_tile(w, w_layer, w_block, s, layer, block, groups, values, scales, row, thread):
            # Buffers of at most 1 KiB, of TVM's default scope, that do not outlive the tile: so they become registers.
            left = T.alloc_buffer((rows * 16,), "float32")
            right = T.alloc_buffer((rows * 16,), "float32")
            for r in T.unroll(rows):
                left[lanes(r * 16)] = splat(f32(0))
                right[lanes(r * 16)] = splat(f32(0))
            weights.tiles[rows](left, right, w, w_layer, w_block, s, layer, block, groups, values, scales, row)
            for r in T.unroll(rows):
                sink(left, right, r * 16, row + r, block, thread)

        return run_tile

    def rest_of(sizes: list[int]):
        """What multiplies the rows from `start` on, in tiles of these sizes."""
        if not sizes:
            return _no_rows
        size, after = sizes[0], rest_of(sizes[1:])
        tile = tile_of(size)

        @T.inline
        def run_rest(start, rows, w, s, layer, block, groups, values, scales, thread):
            for i in T.serial((rows - start) // size):
                tile(w, layer, block, s, layer, block, groups, values, scales, start + i * size, thread)
            after(rows // size * size, rows, w, s, layer, block, groups, values, scales, thread)

        return run_rest

    first, rest = tile_of(largest), rest_of(smaller)

    @T.inline
    def multiply(rows, w, s, u, layer, block, groups, values, scales, thread):
        if rows >= enough:
            if weights.unpack is not None:
                weights.unpack(w, u, layer, block, groups)
            for i in T.serial(rows // largest):
                if weights.unpack is not None:
                    first(u, 0, 0, s, layer, block, groups, values, scales, i * largest, thread)
                else:
                    first(w, layer, block, s, layer, block, groups, values, scales, i * largest, thread)
        rest(
            T.Select(rows >= enough, rows // largest * largest, 0),
            rows,
            w,
            s,
            layer,
            block,
            groups,
            values,
            scales,
            thread,
        )

    return multiply


@T.inline
def _no_rows(start, rows, w, s, layer, block, groups, values, scales, thread):
    pass
