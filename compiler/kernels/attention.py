"""Rotary embedding, KV append, and attention of one row over its session's pages.

A page holds 16 tokens of one KV head: keys [head_dim, 16] (a column per token), values [16, head_dim]. A row's context
is cut into shares of whole pages by its position alone, so that threads can work on one row without changing its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.vector import f32, fma, inverse_root, lanes, largest, maximum, splat, store_exp, total, widen
from compiler.models.spec import ArchitectureDims

PAGE_TOKENS = 16
SHARES = 4  # most shares of one row's context
SHARE_PAGES = 4  # pages that are worth a share of their own
EMPTY = -1e30


@dataclass(frozen=True)
class AttentionKernels:
    """The three steps of attention; `part_columns` is the width of what a share leaves for `merge`."""

    part_columns: int
    rotate_and_append: Any
    attend: Any
    merge: Any


def shares_of(position):
    """How many shares the context of a row at `position` is cut into."""
    return T.min(SHARES, (position // PAGE_TOKENS + SHARE_PAGES) // SHARE_PAGES)


def attention_kernels(dims: ArchitectureDims, store) -> AttentionKernels:
    """Kernels for these dimensions; `store` puts 32 merged columns into an activation format."""
    hd, heads, kv_heads = dims.head_dim, dims.heads, dims.kv_heads
    half = hd // 2
    repeat = heads // kv_heads
    scale = 1.0 / dims.score_width**0.5
    stride = hd + 16  # per query head: largest score, sum of weights, padding to a vector; then hd weighted values

    @T.inline
    def rotate(qkv, row, column, rope, position, factor):
        """Half-split rotation of one head of qkv[row], in place."""
        turned = T.alloc_buffer((32,), "float32", scope="local")
        for i in T.unroll(hd // 32):
            turned[lanes(0)] = fma(
                qkv[row, lanes(column + i * 16)],
                rope[position, lanes(i * 16)],
                (qkv[row, lanes(column + half + i * 16)] * rope[position, lanes(half + i * 16)]) * splat(f32(-1)),
            )
            turned[lanes(16)] = fma(
                qkv[row, lanes(column + half + i * 16)],
                rope[position, lanes(i * 16)],
                qkv[row, lanes(column + i * 16)] * rope[position, lanes(half + i * 16)],
            )
            qkv[row, lanes(column + i * 16)] = turned[lanes(0)] * splat(f32(factor))
            qkv[row, lanes(column + half + i * 16)] = turned[lanes(16)] * splat(f32(factor))

    @T.inline
    def add_bias(qkv, row, column, bias, layer):
        """Adds the bias of one head of qkv[row], where the model has one."""
        if dims.qkv_bias:
            for i in T.unroll(hd // 16):
                qkv[row, lanes(column + i * 16)] = (
                    qkv[row, lanes(column + i * 16)] + bias[layer, lanes(column + i * 16)]
                )

    @T.inline
    def norm_head(qkv, row, column, gains, layer):
        """RMS norm of one head of qkv[row], in place, where the model has one."""
        if dims.qk_norm:
            squares = T.alloc_buffer((16,), "float32", scope="local")
            factor = T.alloc_buffer((1,), "float32", scope="local")
            squares[lanes(0)] = splat(f32(0))
            for i in T.unroll(hd // 16):
                squares[lanes(0)] = fma(
                    qkv[row, lanes(column + i * 16)], qkv[row, lanes(column + i * 16)], squares[lanes(0)]
                )
            factor[0] = inverse_root(total(squares[lanes(0)]), dims.score_width, dims.rms_eps)
            for i in T.unroll(hd // 16):
                qkv[row, lanes(column + i * 16)] = (
                    qkv[row, lanes(column + i * 16)] * splat(factor[0]) * gains[layer, lanes(i * 16)]
                )

    @T.inline
    def rotate_and_append(
        qkv, row, position, slot, page_table, rope, keys, values, layer, k, bias, query_gains, key_gains
    ):
        """Rotates KV head k of `row` and its query heads, and writes the new key and value to their page."""
        for r in T.serial(repeat):
            add_bias(qkv, row, (k * repeat + r) * hd, bias, layer)
            norm_head(qkv, row, (k * repeat + r) * hd, query_gains, layer)
            rotate(qkv, row, (k * repeat + r) * hd, rope, position, scale)
        add_bias(qkv, row, (heads + k) * hd, bias, layer)
        norm_head(qkv, row, (heads + k) * hd, key_gains, layer)
        rotate(qkv, row, (heads + k) * hd, rope, position, 1.0)
        add_bias(qkv, row, (heads + kv_heads + k) * hd, bias, layer)
        for i in T.serial(hd):
            keys[layer, page_table[slot, position // PAGE_TOKENS], k, i, position % PAGE_TOKENS] = T.cast(
                qkv[row, (heads + k) * hd + i], "float16"
            )
        for i in T.unroll(hd // 16):
            values[layer, page_table[slot, position // PAGE_TOKENS], k, position % PAGE_TOKENS, lanes(i * 16)] = T.cast(
                qkv[row, lanes((heads + kv_heads + k) * hd + i * 16)], "float16x16"
            )

    @T.inline
    def attend(qkv, row, position, slot, page_table, keys, values, layer, k, share, score, thread, part):
        """The query heads of KV head k over one share of the context; two passes, the scores in between in `score`."""
        acc = T.alloc_buffer((repeat * hd,), "float32", scope="local")
        sums = T.alloc_buffer((repeat * 64,), "float32", scope="local")
        weight = T.alloc_buffer((repeat * 16,), "float32", scope="local")
        top = T.alloc_buffer((repeat * 16,), "float32", scope="local")
        mass = T.alloc_buffer((repeat * 16,), "float32", scope="local")
        best = T.alloc_buffer((repeat,), "float32", scope="local")
        for r in T.unroll(repeat):
            top[lanes(r * 16)] = splat(f32(EMPTY))
            mass[lanes(r * 16)] = splat(f32(0))
            for c in T.unroll(hd // 16):
                acc[lanes(r * hd + c * 16)] = splat(f32(0))
        for page in T.serial(
            (position // PAGE_TOKENS + 1) * share // shares_of(position),
            (position // PAGE_TOKENS + 1) * (share + 1) // shares_of(position),
        ):
            for i in T.unroll(repeat * 4):
                sums[lanes(i * 16)] = splat(f32(0))
            for d in T.serial(hd // 4):
                for u in T.unroll(4):
                    for r in T.unroll(repeat):
                        sums[lanes((r * 4 + u) * 16)] = fma(
                            widen(keys[layer, page_table[slot, page], k, d * 4 + u, lanes(0)]),
                            splat(qkv[row, (k * repeat + r) * hd + d * 4 + u]),
                            sums[lanes((r * 4 + u) * 16)],
                        )
            for r in T.unroll(repeat):
                sums[lanes(r * 64)] = T.Select(
                    T.ramp(page * PAGE_TOKENS, 1, 16) <= splat(position),
                    (sums[lanes(r * 64)] + sums[lanes(r * 64 + 16)])
                    + (sums[lanes(r * 64 + 32)] + sums[lanes(r * 64 + 48)]),
                    splat(f32(EMPTY)),
                )
                score[thread, r, lanes(page * PAGE_TOKENS)] = sums[lanes(r * 64)]
                top[lanes(r * 16)] = maximum(top[lanes(r * 16)], sums[lanes(r * 64)])
        for r in T.unroll(repeat):
            best[r] = largest(top[lanes(r * 16)])
        for page in T.serial(
            (position // PAGE_TOKENS + 1) * share // shares_of(position),
            (position // PAGE_TOKENS + 1) * (share + 1) // shares_of(position),
        ):
            for r in T.unroll(repeat):
                store_exp(weight, r * 16, score[thread, r, lanes(page * PAGE_TOKENS)] - splat(best[r]))
                mass[lanes(r * 16)] = mass[lanes(r * 16)] + weight[lanes(r * 16)]
            for t in T.serial(PAGE_TOKENS):
                for c in T.unroll(hd // 16):
                    for r in T.unroll(repeat):
                        acc[lanes(r * hd + c * 16)] = fma(
                            widen(values[layer, page_table[slot, page], k, t, lanes(c * 16)]),
                            splat(weight[r * 16 + t]),
                            acc[lanes(r * hd + c * 16)],
                        )
        for r in T.unroll(repeat):
            part[row, share * kv_heads + k, r * stride] = best[r]
            part[row, share * kv_heads + k, r * stride + 1] = total(mass[lanes(r * 16)])
            for c in T.unroll(hd // 16):
                part[row, share * kv_heads + k, lanes(r * stride + 16 + c * 16)] = acc[lanes(r * hd + c * 16)]

    @T.inline
    def merge(part, row, position, head, out, scales):
        """Weighs the shares of one query head against each other and stores the head's columns."""
        joined = T.alloc_buffer((hd,), "float32", scope="local")
        best = T.alloc_buffer((1,), "float32", scope="local")
        mass = T.alloc_buffer((16,), "float32", scope="local")
        weight = T.alloc_buffer((16,), "float32", scope="local")
        best[0] = f32(EMPTY)
        mass[lanes(0)] = splat(f32(0))
        for c in T.unroll(hd // 16):
            joined[lanes(c * 16)] = splat(f32(0))
        for share in T.serial(shares_of(position)):
            best[0] = T.max(best[0], part[row, share * kv_heads + head // repeat, head % repeat * stride])
        for share in T.serial(shares_of(position)):
            store_exp(weight, 0, splat(part[row, share * kv_heads + head // repeat, head % repeat * stride] - best[0]))
            mass[lanes(0)] = fma(
                weight[lanes(0)],
                splat(part[row, share * kv_heads + head // repeat, head % repeat * stride + 1]),
                mass[lanes(0)],
            )
            for c in T.unroll(hd // 16):
                joined[lanes(c * 16)] = fma(
                    weight[lanes(0)],
                    part[row, share * kv_heads + head // repeat, lanes(head % repeat * stride + 16 + c * 16)],
                    joined[lanes(c * 16)],
                )
        for c in T.unroll(hd // 16):
            joined[lanes(c * 16)] = joined[lanes(c * 16)] * (splat(f32(1)) / mass[lanes(0)])
        for c in T.unroll(hd // 32):
            store(joined, c * 32, out, scales, row, head * (hd // 32) + c)

    return AttentionKernels(repeat * stride, rotate_and_append, attend, merge)
