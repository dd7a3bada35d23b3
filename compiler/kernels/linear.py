"""Rows of activations times a packed weight, batch-invariant: every row sums in the same order in every tile size.

Packed weight of a layer with N rows and K columns, unsigned q and w = d*q + m per group of 32 columns:
  q  uint32 [N/32, K/32, WORDS, 2, 16]  lane (t, n) holds row 32*b + 16*t + n. WORDS = 8: a byte per weight, word j
                                        holds columns 4j..4j+3. WORDS = 4: so the low nibbles; high: 16 columns on
  s  float16 [N/32, K/32, 4, 16]        d of tile 0, d of tile 1, m of tile 0, m of tile 1
or, unquantised: float32 [N/32, K, 32].

A `Linear` gives `multiply`, which sends each finished strip of 32 outputs of a row to a sink. Tiles of many rows reuse
each weight that was loaded; rows that fill no tile go through smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.vector import (
    DOTS,
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

# Rows of a tile, largest first; the last is one, so that every count of rows can be made up. Six rows and 32 columns
# leave enough of the 32 vector registers for the weights.
TILE_ROWS = (6, 2, 1)
PREFETCH_GROUPS = 8


@dataclass(frozen=True)
class WeightFormat:
    """Shapes of a packed weight, and the code over it: `tiles[rows]`, `unpack`, and `read` for one unscaled weight."""

    words: int
    q_dtype: str
    scaled: bool
    tiles: dict[int, Any]
    unpack: Any
    read: Any = None

    def q_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of q for one matrix."""
        if not self.scaled:
            return (rows // 32, columns, 32)
        return (rows // 32, columns // 32, self.words, 2, 16)

    def s_shape(self, rows: int, columns: int) -> tuple[int, ...]:
        """Shape of s for one matrix; one unused element per matrix where weights are not scaled."""
        return (rows // 32, columns // 32, 4, 16) if self.scaled else (1,)

    def unpacked_shape(self, columns: int) -> tuple[int, ...]:
        """Shape of a thread's scratch for 32 unpacked rows; a single word where nothing is unpacked."""
        return (columns // 32, 8, 2, 16) if self.words == 4 else (1, 1, 1, 16)


def _byte_tile(rows: int, words: int, dot, unpacked: bool):
    """`rows` x 32 outputs; weights are bytes of w, nibbles of w (words = 4), or already unpacked in u."""

    @T.inline
    def tile(y, w, s, u, layer, block, groups, values, scales, row):
        whole = T.alloc_buffer((rows * 32,), "int32", scope="local")
        for i in T.unroll(rows * 2):
            y[lanes(i * 16)] = splat(f32(0))
        for g in T.serial(groups):
            for i in T.unroll(rows * 2):
                whole[lanes(i * 16)] = splat(T.int32(0))
            for term in T.unroll(2):
                for j in T.unroll(8 if unpacked else words):
                    for t in T.unroll(2):
                        if not unpacked and term == 0:
                            T.evaluate(prefetch(T.address_of(w[layer, block, g + PREFETCH_GROUPS, j, t, 0])))
                        for r in T.unroll(rows):
                            if unpacked:
                                whole[lanes((r * 2 + t) * 16)] = dot(
                                    whole[lanes((r * 2 + t) * 16)],
                                    u[g, j, t, lanes(0)],
                                    values[row + r, lanes(g * 64 + term * 32 + j * 4, 4)],
                                )
                            elif words == 8:
                                whole[lanes((r * 2 + t) * 16)] = dot(
                                    whole[lanes((r * 2 + t) * 16)],
                                    w[layer, block, g, j, t, lanes(0)],
                                    values[row + r, lanes(g * 64 + term * 32 + j * 4, 4)],
                                )
                            else:
                                whole[lanes((r * 2 + t) * 16)] = dot(
                                    whole[lanes((r * 2 + t) * 16)],
                                    low_nibbles(w[layer, block, g, j, t, lanes(0)]),
                                    values[row + r, lanes(g * 64 + term * 32 + j * 4, 4)],
                                )
                                whole[lanes((r * 2 + t) * 16)] = dot(
                                    whole[lanes((r * 2 + t) * 16)],
                                    high_nibbles(w[layer, block, g, j, t, lanes(0)]),
                                    values[row + r, lanes(g * 64 + term * 32 + 16 + j * 4, 4)],
                                )
                if term == 0:
                    for i in T.unroll(rows * 2):
                        whole[lanes(i * 16)] = T.shift_left(whole[lanes(i * 16)], splat(T.int32(8)))
            for r in T.unroll(rows):
                for t in T.unroll(2):
                    y[lanes((r * 2 + t) * 16)] = fma(
                        T.cast(whole[lanes((r * 2 + t) * 16)], "float32x16"),
                        widen(s[layer, block, g, t, lanes(0)]) * splat(scales[row + r, g * 2]),
                        fma(
                            widen(s[layer, block, g, 2 + t, lanes(0)]),
                            splat(scales[row + r, g * 2 + 1]),
                            y[lanes((r * 2 + t) * 16)],
                        ),
                    )

    return tile


@T.inline
def _unpack_nibbles(w, u, layer, block, groups):
    for g in T.serial(groups):
        for j in T.unroll(4):
            for t in T.unroll(2):
                T.evaluate(prefetch(T.address_of(w[layer, block, g + PREFETCH_GROUPS, j, t, 0])))
                u[g, j, t, lanes(0)] = low_nibbles(w[layer, block, g, j, t, lanes(0)])
                u[g, 4 + j, t, lanes(0)] = high_nibbles(w[layer, block, g, j, t, lanes(0)])


@T.inline
def _unpack_nothing(w, u, layer, block, groups):
    pass


def _float_tile(rows: int, to_float):
    @T.inline
    def tile(y, w, s, u, layer, block, groups, values, scales, row):
        for i in T.unroll(rows * 2):
            y[lanes(i * 16)] = splat(f32(0))
        for k in T.serial(groups * 32):
            for t in T.unroll(2):
                for r in T.unroll(rows):
                    y[lanes((r * 2 + t) * 16)] = fma(
                        to_float(w[layer, block, k, lanes(t * 16)], LANES),
                        splat(values[row + r, k]),
                        y[lanes((r * 2 + t) * 16)],
                    )

    return tile


# dtype, and from it to float32 for the count of lanes given
_FLOATS = {"f32": ("float32", lambda a, _: a), "f16": ("float16", widen), "bf16": ("uint16", widen_bf16)}


def weight_format(stored: str, dot: str) -> WeightFormat:
    """The format of one `quantisation.Storage`; `dot` is a key of `vector.DOTS`."""
    if stored in _FLOATS:
        dtype, to_float = _FLOATS[stored]
        tiles = {rows: _float_tile(rows, to_float) for rows in TILE_ROWS}
        return WeightFormat(0, dtype, False, tiles, _unpack_nothing, lambda a: to_float(a, 1))
    words = INTEGER_BITS[stored]
    tiles = {r: _byte_tile(r, words, DOTS[dot], words == 4 and r == TILE_ROWS[0]) for r in TILE_ROWS}
    return WeightFormat(words, "uint32", True, tiles, _unpack_nibbles if words == 4 else _unpack_nothing)


def multiplier(weights: WeightFormat, sink):
    """Multiplies all rows with one block of 32 outputs; calls `sink(y, offset, row, block, thread)` for each row."""
    first, second, third = (weights.tiles[r] for r in TILE_ROWS)
    large, small, _ = TILE_ROWS

    def rest(rows):
        """First row that fills no tile."""
        return rows // large * large + rows % large // small * small

    @T.inline
    def multiply(rows, y, w, s, u, layer, block, groups, values, scales, thread):
        if rows >= large:
            weights.unpack(w, u, layer, block, groups)
        for i in T.serial(rows // large):
            first(y, w, s, u, layer, block, groups, values, scales, i * large)
            for r in T.unroll(large):
                sink(y, r * 32, i * large + r, block, thread)
        for i in T.serial(rows % large // small):
            second(y, w, s, u, layer, block, groups, values, scales, rows // large * large + i * small)
            for r in T.unroll(small):
                sink(y, r * 32, rows // large * large + i * small + r, block, thread)
        for i in T.serial(rows % large % small):
            third(
                y,
                w,
                s,
                u,
                layer,
                block,
                groups,
                values,
                scales,
                rest(rows) + i,
            )
            sink(y, 0, rest(rows) + i, block, thread)

    return multiply
