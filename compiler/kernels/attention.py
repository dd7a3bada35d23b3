"""Rotary embedding, KV append, and attention of a row, or of a tile of rows, over their session's pages.

A page holds 16 tokens of one KV head: keys [head_dim, 16] (a column per token), values [16, head_dim]. A row's context
is cut into shares of whole pages by its position alone, so that threads can work on one row without changing its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.vector import (
    f32,
    fma,
    inverse_root,
    lanes,
    largest,
    maximum,
    prefetch,
    splat,
    store_exp,
    total,
    widen,
)
from compiler.models.spec import ArchitectureDims
from mec_platform.domain.kernel_contract import PAGE_TOKENS

SHARES = 4  # most shares of one row's context
SHARE_PAGES = 4  # pages that are worth a share of their own
EMPTY = -1e30
PREFETCH_PAGES = 1


@dataclass(frozen=True)
class AttentionKernels:
    """The three steps of attention: what one thread of several does of each, over all rows of a batch.

    `score` of `attend` is [threads, pages of a context, `score_columns`], `part` is [rows, SHARES * KV heads, `part_columns`].
    """

    score_columns: int
    part_columns: int
    append: Any
    attend: Any
    merge: Any


def shares_of(position):
    """How many shares the context of a row at `position` is cut into."""
    return T.min(SHARES, (position // PAGE_TOKENS + SHARE_PAGES) // SHARE_PAGES)


def first_page(position, share):
    """The page with which a share of the context of a row at `position` begins."""
    return (position // PAGE_TOKENS + 1) * share // shares_of(position)


def tile_rows_of(dims: ArchitectureDims, tile_queries: int) -> int:
    """Rows whose queries are multiplied with a page at once: a power of two, so that tiles and pages fit together."""
    return max(rows for rows in (1, 2, 4, 8) if rows == 1 or rows * dims.heads // dims.kv_heads <= tile_queries)


def attention_kernels(dims: ArchitectureDims, store, tile_queries: int) -> AttentionKernels:
    """Kernels for these dimensions; `store` puts 32 merged columns into an activation format.

    `tile_queries`: see `compiler.targets`.
    """
    hd, heads, kv_heads = dims.head_dim, dims.heads, dims.kv_heads
    half = hd // 2
    repeat = heads // kv_heads
    scale = 1.0 / dims.score_width**0.5
    tile_rows = tile_rows_of(dims, tile_queries)
    stride = hd + 16  # per query head: largest score, sum of weights, padding to a vector; then hd weighted values

    @T.inline
    def rotate(qkv, row, column, rope, position, factor):
        """Half-split rotation of one head of qkv[row], in place."""
        turned = T.alloc_buffer((32,), "float32")
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
            squares = T.alloc_buffer((16,), "float32")
            factor = T.alloc_buffer((1,), "float32")
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

    def stands_in_one_page(rows, tile, position, slots):
        """Whether all rows of a tile exist, and ask for the same pages."""
        first = tile * tile_rows
        same = first + tile_rows <= rows
        for row in (T.min(rows - 1, first + r) for r in range(1, tile_rows)):
            same = T.And(same, slots[first] == slots[row])
            same = T.And(same, position[first] // PAGE_TOKENS == position[row] // PAGE_TOKENS)
        return same

    @T.inline
    def put_part(part, row, column, query, dimension, acc, i):
        part[row, column, lanes(query * stride + 16 + dimension)] = acc[lanes(i * 16)]

    def page_ahead(page_table, slot, page, position, share):
        """The page that is read `PREFETCH_PAGES` later, or the last of the share."""
        return page_table[slot, T.min(page + PREFETCH_PAGES, first_page(position, share + 1) - 1)]

    def attender(rows: int):
        """`attend` for consecutive rows of a batch that stand in one page of one session (or for one row).

        Every row's sums run in the same order whatever `rows` is: scores over even and odd dimensions, then their sum;
        values over tokens.
        """
        queries = (
            rows * repeat
        )  # accumulators are one buffer per kind, so that each fits the stack and becomes registers
        wide = hd % 64 == 0 and queries * 4 <= 2 * tile_queries
        chunk = 64 if wide else 32  # dimensions of values that are summed at a time

        @T.inline
        def attend(qkv, row, position, slot, page_table, keys, values, layer, k, share, score, thread, part):
            even = T.alloc_buffer((queries * 16,), "float32")
            odd = T.alloc_buffer((queries * 16,), "float32")
            top = T.alloc_buffer((queries * 16,), "float32")
            mass = T.alloc_buffer((queries * 16,), "float32")
            best = T.alloc_buffer((queries,), "float32")
            acc0 = T.alloc_buffer((queries * 16,), "float32")
            acc1 = T.alloc_buffer((queries * 16,), "float32")
            acc2 = T.alloc_buffer((queries * 16,), "float32")
            acc3 = T.alloc_buffer((queries * 16,), "float32")
            for i in T.unroll(queries):
                top[lanes(i * 16)] = splat(f32(EMPTY))
                mass[lanes(i * 16)] = splat(f32(0))
            for page in T.serial(first_page(position[row], share), first_page(position[row], share + 1)):
                for i in T.unroll(queries):
                    even[lanes(i * 16)] = splat(f32(0))
                    odd[lanes(i * 16)] = splat(f32(0))
                for d in T.serial(half):
                    T.evaluate(
                        prefetch(
                            T.address_of(
                                keys[layer, page_ahead(page_table, slot, page, position[row], share), k, d * 2, 0]
                            )
                        )
                    )
                    for i in T.unroll(queries):
                        even[lanes(i * 16)] = fma(
                            widen(keys[layer, page_table[slot, page], k, d * 2, lanes(0)]),
                            splat(qkv[row + i // repeat, (k * repeat + i % repeat) * hd + d * 2]),
                            even[lanes(i * 16)],
                        )
                    for i in T.unroll(queries):
                        odd[lanes(i * 16)] = fma(
                            widen(keys[layer, page_table[slot, page], k, d * 2 + 1, lanes(0)]),
                            splat(qkv[row + i // repeat, (k * repeat + i % repeat) * hd + d * 2 + 1]),
                            odd[lanes(i * 16)],
                        )
                for i in T.unroll(queries):
                    score[thread, page, lanes(i * 16)] = even[lanes(i * 16)] + odd[lanes(i * 16)]
            if share + 1 == shares_of(position[row]):
                for i in T.unroll(queries):
                    score[thread, position[row] // PAGE_TOKENS, lanes(i * 16)] = T.Select(
                        T.ramp(0, 1, 16) <= splat(position[row + i // repeat] % PAGE_TOKENS),
                        score[thread, position[row] // PAGE_TOKENS, lanes(i * 16)],
                        splat(f32(EMPTY)),
                    )
            for page in T.serial(first_page(position[row], share), first_page(position[row], share + 1)):
                for i in T.unroll(queries):
                    top[lanes(i * 16)] = maximum(top[lanes(i * 16)], score[thread, page, lanes(i * 16)])
            for i in T.unroll(queries):
                best[i] = largest(top[lanes(i * 16)])
            for page in T.serial(first_page(position[row], share), first_page(position[row], share + 1)):
                for i in T.unroll(queries):
                    store_exp(even, i * 16, score[thread, page, lanes(i * 16)] - splat(best[i]))
                    score[thread, page, lanes(i * 16)] = even[lanes(i * 16)]
                    mass[lanes(i * 16)] = mass[lanes(i * 16)] + even[lanes(i * 16)]
            for i in T.unroll(queries):
                part[row + i // repeat, share * kv_heads + k, i % repeat * stride] = best[i]
                part[row + i // repeat, share * kv_heads + k, i % repeat * stride + 1] = total(mass[lanes(i * 16)])
            for c in T.serial(hd // chunk):
                for i in T.unroll(queries):
                    acc0[lanes(i * 16)] = splat(f32(0))
                    acc1[lanes(i * 16)] = splat(f32(0))
                    if wide:
                        acc2[lanes(i * 16)] = splat(f32(0))
                        acc3[lanes(i * 16)] = splat(f32(0))
                for page in T.serial(first_page(position[row], share), first_page(position[row], share + 1)):
                    for t in T.serial(PAGE_TOKENS):
                        for line in T.unroll(chunk // 32):
                            T.evaluate(
                                prefetch(
                                    T.address_of(
                                        values[
                                            layer,
                                            page_ahead(page_table, slot, page, position[row], share),
                                            k,
                                            t,
                                            c * chunk + line * 32,
                                        ]
                                    )
                                )
                            )
                        for i in T.unroll(queries):
                            acc0[lanes(i * 16)] = fma(
                                widen(values[layer, page_table[slot, page], k, t, lanes(c * chunk)]),
                                splat(score[thread, page, i * 16 + t]),
                                acc0[lanes(i * 16)],
                            )
                            acc1[lanes(i * 16)] = fma(
                                widen(values[layer, page_table[slot, page], k, t, lanes(c * chunk + 16)]),
                                splat(score[thread, page, i * 16 + t]),
                                acc1[lanes(i * 16)],
                            )
                            if wide:
                                acc2[lanes(i * 16)] = fma(
                                    widen(values[layer, page_table[slot, page], k, t, lanes(c * chunk + 32)]),
                                    splat(score[thread, page, i * 16 + t]),
                                    acc2[lanes(i * 16)],
                                )
                                acc3[lanes(i * 16)] = fma(
                                    widen(values[layer, page_table[slot, page], k, t, lanes(c * chunk + 48)]),
                                    splat(score[thread, page, i * 16 + t]),
                                    acc3[lanes(i * 16)],
                                )
                for i in T.unroll(queries):
                    put_part(part, row + i // repeat, share * kv_heads + k, i % repeat, c * chunk, acc0, i)
                    put_part(part, row + i // repeat, share * kv_heads + k, i % repeat, c * chunk + 16, acc1, i)
                    if wide:
                        put_part(part, row + i // repeat, share * kv_heads + k, i % repeat, c * chunk + 32, acc2, i)
                        put_part(part, row + i // repeat, share * kv_heads + k, i % repeat, c * chunk + 48, acc3, i)

        return attend

    attend_tile, attend_row = attender(tile_rows), attender(1)

    @T.inline
    def attend_share(rows, tile, qkv, position, slots, page_table, keys, values, layer, k, share, score, thread, part):
        """The query heads of KV head k over one share of the context, for the rows of a tile: at once where they can be.

        Two passes over the scores, which lie in `score` in between.
        """
        if stands_in_one_page(rows, tile, position, slots):
            if share < shares_of(position[tile * tile_rows]):
                attend_tile(
                    qkv,
                    tile * tile_rows,
                    position,
                    slots[tile * tile_rows],
                    page_table,
                    keys,
                    values,
                    layer,
                    k,
                    share,
                    score,
                    thread,
                    part,
                )
        else:
            # Counted from zero: TVM shifts a loop that begins elsewhere, but not the bounds of the loops in it.
            for r in T.serial(T.min(rows - tile * tile_rows, tile_rows)):
                if share < shares_of(position[tile * tile_rows + r]):
                    attend_row(
                        qkv,
                        tile * tile_rows + r,
                        position,
                        slots[tile * tile_rows + r],
                        page_table,
                        keys,
                        values,
                        layer,
                        k,
                        share,
                        score,
                        thread,
                        part,
                    )

    @T.inline
    def merge_head(part, row, position, head, out, scales):
        """Weighs the shares of one query head against each other and stores the head's columns."""
        joined = T.alloc_buffer((hd,), "float32")
        best = T.alloc_buffer((1,), "float32")
        mass = T.alloc_buffer((16,), "float32")
        weight = T.alloc_buffer((16,), "float32")
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

    @T.inline
    def append(
        thread,
        threads,
        rows,
        qkv,
        positions,
        slots,
        page_table,
        rope,
        keys,
        values,
        layer,
        bias,
        query_gains,
        key_gains,
    ):
        """Bias, norm and rotation of all heads; new keys and values go to their pages."""
        for i in T.serial((rows * kv_heads - thread + threads - 1) // threads):
            rotate_and_append(
                qkv,
                (i * threads + thread) // kv_heads,
                positions[(i * threads + thread) // kv_heads],
                slots[(i * threads + thread) // kv_heads],
                page_table,
                rope,
                keys,
                values,
                layer,
                (i * threads + thread) % kv_heads,
                bias,
                query_gains,
                key_gains,
            )

    def owner_of(tile, share, k, positions):
        """Who attends: heads of a share stay together, as they lie in memory, where there are several shares."""
        several = shares_of(positions[tile * tile_rows]) > 1
        return T.Select(several, tile * SHARES + share, tile * kv_heads + k)

    @T.inline
    def attend(thread, threads, rows, qkv, positions, slots, page_table, keys, values, layer, score, part):
        """Every query head over every share of its row's context."""
        for i in T.serial((rows + tile_rows - 1) // tile_rows * SHARES * kv_heads):
            if owner_of(i // kv_heads // SHARES, i // kv_heads % SHARES, i % kv_heads, positions) % threads == thread:
                attend_share(
                    rows,
                    i // kv_heads // SHARES,
                    qkv,
                    positions,
                    slots,
                    page_table,
                    keys,
                    values,
                    layer,
                    i % kv_heads,
                    i // kv_heads % SHARES,
                    score,
                    thread,
                    part,
                )

    @T.inline
    def merge(thread, threads, rows, part, positions, out, scales):
        """Shares of every query head become its columns of the row."""
        for i in T.serial((rows * heads - thread + threads - 1) // threads):
            merge_head(
                part,
                (i * threads + thread) // heads,
                positions[(i * threads + thread) // heads],
                (i * threads + thread) % heads,
                out,
                scales,
            )

    return AttentionKernels(tile_rows * repeat * PAGE_TOKENS, repeat * stride, append, attend, merge)
