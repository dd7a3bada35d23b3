"""How rows of activations are stored between regions: as 15-bit integers in two int8 terms, or as plain floats.

Quantised form, per row and group of 32 columns (scale s = largest magnitude / 32512):
  x ~ s * X, X = 256*hi + lo in [-32512, 32512], hi and lo int8
  values int8  [M, G*64+64]  32 hi terms, then 32 lo terms
  scales f32   [M, G*2]      s, and s * sum(X), which weights that have an offset need
Plain form: values f32 [M, G*32+16]; scales are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.vector import (
    absolute,
    f32,
    fma,
    integer_total,
    inverse_root,
    lanes,
    largest_magnitude,
    maximum,
    nearest,
    splat,
    total,
)
from compiler.models.spec import ArchitectureDims

LARGEST = 127 * 256


@dataclass(frozen=True)
class ActivationFormat:
    """Storage of one group (`store`), of a normalised row (`normalise`), and the buffer types.

    Rows of values stand a cache line further apart than they are long: rows a multiple of 4096 bytes apart, as those of
    many models are, would share the same few lines of the cache.
    """

    values_dtype: str
    values_per_group: int
    values_padding: int
    store: Any
    normalise: Any

    def values_stride(self, columns: int) -> int:
        """Elements from one row of values to the next."""
        return columns // 32 * self.values_per_group + self.values_padding


@T.inline
def _store_quantised(source, offset, values, scales, row, group):
    """32 floats at source[offset] become group `group` of `row`."""
    top = T.alloc_buffer((1,), "float32")
    whole = T.alloc_buffer((32,), "int32")
    top[0] = T.max(
        largest_magnitude(maximum(absolute(source[lanes(offset)]), absolute(source[lanes(offset + 16)]))), f32(1e-30)
    )
    for t in T.unroll(2):
        whole[lanes(t * 16)] = T.cast(
            nearest(source[lanes(offset + t * 16)] * splat(f32(LARGEST) / top[0])), "int32x16"
        )
        values[row, lanes(group * 64 + t * 16)] = T.cast(
            T.shift_right(whole[lanes(t * 16)] + splat(T.int32(128)), splat(T.int32(8))), "int8x16"
        )
        values[row, lanes(group * 64 + 32 + t * 16)] = T.cast(whole[lanes(t * 16)], "int8x16")
    scales[row, group * 2] = top[0] * f32(1.0 / LARGEST)
    scales[row, group * 2 + 1] = (top[0] * f32(1.0 / LARGEST)) * T.cast(
        integer_total(whole[lanes(0)] + whole[lanes(16)]), "float32"
    )


@T.inline
def _store_plain(source, offset, values, scales, row, group):
    """32 floats at source[offset] become group `group` of `row`."""
    for t in T.unroll(2):
        values[row, lanes(group * 32 + t * 16)] = source[lanes(offset + t * 16)]


def _normaliser(dims: ArchitectureDims, store):
    width = dims.hidden

    @T.inline
    def normalise(source, row, gains, layer, values, scales):
        """RMS norm of source[row] times gains[layer], stored."""
        squares = T.alloc_buffer((32,), "float32")
        factor = T.alloc_buffer((1,), "float32")
        scaled = T.alloc_buffer((32,), "float32")
        for t in T.unroll(2):
            squares[lanes(t * 16)] = splat(f32(0))
        for g in T.serial(width // 32):
            for t in T.unroll(2):
                squares[lanes(t * 16)] = fma(
                    source[row, lanes(g * 32 + t * 16)], source[row, lanes(g * 32 + t * 16)], squares[lanes(t * 16)]
                )
        factor[0] = inverse_root(total(squares[lanes(0)] + squares[lanes(16)]), dims.norm_width, dims.rms_eps)
        for g in T.serial(width // 32):
            for t in T.unroll(2):
                scaled[lanes(t * 16)] = (
                    source[row, lanes(g * 32 + t * 16)] * splat(factor[0]) * gains[layer, lanes(g * 32 + t * 16)]
                )
            store(scaled, 0, values, scales, row, g)

    return normalise


def quantised(dims: ArchitectureDims) -> ActivationFormat:
    """Two int8 terms; `normalise` takes rows of the model's width."""
    return ActivationFormat("int8", 64, 64, _store_quantised, _normaliser(dims, _store_quantised))


def plain(dims: ArchitectureDims) -> ActivationFormat:
    """float32."""
    return ActivationFormat("float32", 32, 16, _store_plain, _normaliser(dims, _store_plain))
