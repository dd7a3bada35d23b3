"""Rows of float32 activations times a packed weight, on a GPU. The packed layout is that of `compiler.kernels.linear`.

Weights become floats in registers, w = fma(d, q, m). Columns are cut into `SLICES` slices of whole groups, by their count
alone; a row's sum runs through each slice in order, then over the slices in order. All kernels sum like that, so that a
row's bits do not depend on which of them ran:

one     one row. A warp takes a slice of a strip of 32 outputs, a lane one output: a word of each is 128 bytes together.
few     the same, `FEW_ROWS` rows for each weight that is read.
many    tiles of 64 rows x 64 outputs through shared memory, 8 x 4 of them in the registers of each thread.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from compiler.kernels.gpu.threads import WARP, as_float, f32, fma, whole
from compiler.kernels.linear import PackedShape
from compiler.kernels.vector import lanes
from compiler.quantisation import INTEGER_BITS

SLICES = 16
FEW_ROWS = 4
FEW_MOST = 16  # rows; for more, a tile of `many` reads less
TILE_ROWS, TILE_OUTPUTS, TILE_THREADS = 64, 64, 128
THREAD_ROWS, THREAD_OUTPUTS = 8, 4
PADDED_ROWS = TILE_ROWS + 4  # spreads the rows of one column over the banks, and keeps 16 bytes together


class GpuWeight(PackedShape):
    """The shapes of a packed weight, and how a lane reads the 32 columns of a group of its output."""

    @property
    def elements(self) -> int:
        """Elements of q that hold a group of one output."""
        return self.words or 32

    def element(self, w, layer, strip, group, i, lane):
        """Element `i` of a group of output `lane` of a strip."""
        if self.scaled:
            return w[layer, strip, group, i, lane // 16, lane % 16]
        return w[layer, strip, group * 32 + i, lane]

    def scale(self, s, layer, strip, group, which, lane):
        """d (which = 0) or m (which = 1) of a group of output `lane` of a strip."""
        if self.scaled:
            return T.cast(s[layer, strip, group, which * 2 + lane // 16, lane % 16], "float32")
        return f32(0)

    def place(self, column):
        """The element that holds a column of a group."""
        return column % 16 // 4 if self.words == 4 else column // 4 if self.words == 8 else column

    def weight(self, element, column, d, m):
        """The weight of a column of a group, from the element at its place."""
        if self.q_dtype == "uint16":
            return as_float(T.shift_left(T.cast(element, "uint32"), T.uint32(16)))
        if not self.scaled:
            return T.cast(element, "float32")
        shift = column % 4 * 8 + (column // 16 * 4 if self.words == 4 else 0)
        mask = T.uint32(255 if self.words == 8 else 15)
        return fma(d, whole(T.bitwise_and(T.shift_right(element, T.cast(shift, "uint32")), mask)), m)


_FLOATS = {"f32": "float32", "f16": "float16", "bf16": "uint16"}


def gpu_weight(stored: str) -> GpuWeight:
    """The format of one `quantisation.Storage`."""
    if stored in _FLOATS:
        return GpuWeight(0, _FLOATS[stored], False)
    return GpuWeight(INTEGER_BITS[stored], "uint32", True)


def _strips(weights: GpuWeight, outputs: int, columns: int, tile: int, sink: Any):
    """A block for each strip and `tile` rows, a warp for each slice of the columns."""
    groups, threads = columns // 32, SLICES * WARP

    @T.inline
    def add_group(t, acc, held, scales, x4, w4, w, s, layer, strip, g, x, first, rows):
        for i in T.unroll(weights.elements):
            held[t, i] = weights.element(w, layer, strip, g, i, t % WARP)
        for i in T.unroll(2):
            scales[t, i] = weights.scale(s, layer, strip, g, i, t % WARP)
        for four in T.unroll(8):
            for c in T.unroll(4):
                w4[t, c] = weights.weight(
                    held[t, weights.place(four * 4 + c)], four * 4 + c, scales[t, 0], scales[t, 1]
                )
            for r in T.unroll(tile):
                x4[t, lanes(0, 4)] = x[T.min(first + r, rows - 1), lanes(g * 32 + four * 4, 4)]
                for c in T.unroll(4):
                    acc[t, r] = fma(w4[t, c], x4[t, c], acc[t, r])

    @T.inline
    def run(rows, x, w, s, layer):
        for strip in T.thread_binding(outputs // 32, "blockIdx.x"):
            for part in T.thread_binding((rows + tile - 1) // tile, "blockIdx.y"):
                sums = T.alloc_buffer((SLICES, tile, WARP), "float32", scope="shared")
                acc = T.alloc_buffer((threads, tile), "float32", scope="local")
                held = T.alloc_buffer((threads, weights.elements), weights.q_dtype, scope="local")
                scales = T.alloc_buffer((threads, 2), "float32", scope="local")
                x4 = T.alloc_buffer((threads, 4), "float32", scope="local")
                w4 = T.alloc_buffer((threads, 4), "float32", scope="local")
                for t in T.thread_binding(threads, "threadIdx.x"):
                    for r in T.unroll(tile):
                        acc[t, r] = f32(0)
                    for g in T.serial(t // WARP * groups // SLICES, (t // WARP + 1) * groups // SLICES):
                        add_group(t, acc, held, scales, x4, w4, w, s, layer, strip, g, x, part * tile, rows)
                    for r in T.unroll(tile):
                        sums[t // WARP, r, t % WARP] = acc[t, r]
                for t in T.thread_binding(threads, "threadIdx.x"):
                    if t < tile * WARP and part * tile + t // WARP < rows:
                        acc[t, 0] = f32(0)
                        for i in T.unroll(SLICES):
                            acc[t, 0] = acc[t, 0] + sums[i, t // WARP, t % WARP]
                        sink(acc[t, 0], part * tile + t // WARP, strip * 32 + t % WARP)

    return run


def _tiles(weights: GpuWeight, outputs: int, columns: int, sink: Any):
    """A block for each 64 x 64 tile of the result; all columns pass through shared memory, a group at a time."""
    groups, strips, threads = columns // 32, outputs // 32, TILE_THREADS
    held, across = THREAD_ROWS * THREAD_OUTPUTS, TILE_OUTPUTS // THREAD_OUTPUTS
    per_strip = weights.elements * 32

    def column_of(element, c):
        """Column `c` of those that an element holds."""
        if weights.words == 4:
            return c // 4 * 16 + element * 4 + c % 4
        return element * 4 + c if weights.words == 8 else element

    @T.inline
    def put_weight(t, column, index, ws, got, scales):
        ws[column, index // per_strip * 32 + index % 32] = weights.weight(got[t, 0], column, scales[t, 0], scales[t, 1])

    @T.inline
    def put_weights(t, index, ws, got, scales, w, s, layer, pair, g):
        """The columns that one element of q holds, of output `index % 32` of one of the tile's strips."""
        got[t, 0] = weights.element(
            w, layer, T.min(pair * 2 + index // per_strip, strips - 1), g, index % per_strip // 32, index % 32
        )
        for i in T.unroll(2):
            scales[t, i] = weights.scale(s, layer, T.min(pair * 2 + index // per_strip, strips - 1), g, i, index % 32)
        for c in T.unroll(32 // weights.elements):
            put_weight(t, column_of(index % per_strip // 32, c), index, ws, got, scales)

    @T.inline
    def fetch(t, xs, ws, got, scales, x, w, s, layer, pair, band, g, rows):
        for i in T.unroll(TILE_ROWS * 32 // threads):
            xs[t % 32, (i * threads + t) // 32] = x[
                T.min(band * TILE_ROWS + (i * threads + t) // 32, rows - 1), g * 32 + t % 32
            ]
        for i in T.unroll(2 * per_strip // threads):
            put_weights(t, i * threads + t, ws, got, scales, w, s, layer, pair, g)

    @T.inline
    def multiply(t, acc, xs, ws, x8, w4):
        for k in T.serial(32):
            for i in T.unroll(THREAD_ROWS // 4):
                x8[t, lanes(i * 4, 4)] = xs[k, lanes(t // across * THREAD_ROWS + i * 4, 4)]
            w4[t, lanes(0, 4)] = ws[k, lanes(t % across * THREAD_OUTPUTS, 4)]
            for r in T.unroll(THREAD_ROWS):
                for c in T.unroll(THREAD_OUTPUTS):
                    acc[t, r * THREAD_OUTPUTS + c] = fma(w4[t, c], x8[t, r], acc[t, r * THREAD_OUTPUTS + c])

    @T.inline
    def store(t, total, pair, band, rows):
        for r in T.unroll(THREAD_ROWS):
            for c in T.unroll(THREAD_OUTPUTS):
                if (
                    band * TILE_ROWS + t // across * THREAD_ROWS + r < rows
                    and pair * TILE_OUTPUTS + t % across * THREAD_OUTPUTS + c < outputs
                ):
                    sink(
                        total[t, r * THREAD_OUTPUTS + c],
                        band * TILE_ROWS + t // across * THREAD_ROWS + r,
                        pair * TILE_OUTPUTS + t % across * THREAD_OUTPUTS + c,
                    )

    @T.inline
    def run(rows, x, w, s, layer):
        for pair in T.thread_binding((strips + 1) // 2, "blockIdx.x"):
            for band in T.thread_binding((rows + TILE_ROWS - 1) // TILE_ROWS, "blockIdx.y"):
                xs = T.alloc_buffer((32, PADDED_ROWS), "float32", scope="shared")
                ws = T.alloc_buffer((32, TILE_OUTPUTS), "float32", scope="shared")
                acc = T.alloc_buffer((threads, held), "float32", scope="local")
                total = T.alloc_buffer((threads, held), "float32", scope="local")
                got = T.alloc_buffer((threads, 1), weights.q_dtype, scope="local")
                scales = T.alloc_buffer((threads, 2), "float32", scope="local")
                x8 = T.alloc_buffer((threads, THREAD_ROWS), "float32", scope="local")
                w4 = T.alloc_buffer((threads, THREAD_OUTPUTS), "float32", scope="local")
                for t in T.thread_binding(threads, "threadIdx.x"):
                    for i in T.unroll(held):
                        acc[t, i] = f32(0)
                        total[t, i] = f32(0)
                for part in T.serial(SLICES):
                    for g in T.serial(part * groups // SLICES, (part + 1) * groups // SLICES):
                        for t in T.thread_binding(threads, "threadIdx.x"):
                            fetch(t, xs, ws, got, scales, x, w, s, layer, pair, band, g, rows)
                        for t in T.thread_binding(threads, "threadIdx.x"):
                            multiply(t, acc, xs, ws, x8, w4)
                    for t in T.thread_binding(threads, "threadIdx.x"):
                        for i in T.unroll(held):
                            total[t, i] = total[t, i] + acc[t, i]
                            acc[t, i] = f32(0)
                for t in T.thread_binding(threads, "threadIdx.x"):
                    store(t, total, pair, band, rows)

    return run


def gpu_multiplier(weights: GpuWeight, outputs: int, columns: int, sink: Any):
    """Launches the kernel that fits the count of rows. `sink(value, row, output)` takes each finished sum."""
    one = _strips(weights, outputs, columns, 1, sink)
    few = _strips(weights, outputs, columns, FEW_ROWS, sink)
    many = _tiles(weights, outputs, columns, sink)

    @T.inline
    def multiply(rows, x, w, s, layer):
        if rows == 1:
            one(rows, x, w, s, layer)
        else:
            if rows <= FEW_MOST:
                few(rows, x, w, s, layer)
            else:
                many(rows, x, w, s, layer)

    return multiply
