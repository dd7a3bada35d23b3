"""Rotary embedding, KV append and attention over a session's pages, on a GPU. Pages are those of `kernels.attention`.

A row's context is cut into shares of whole pages by its position alone. A block takes one share of one KV head of one
row: scores and weighted values run through tiles of the context with a running maximum; `merge` joins the shares. So a
row's sums depend on the row alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from compiler.kernels.attention import EMPTY, PAGE_TOKENS
from compiler.kernels.gpu.threads import JOINED, add, f32, fma
from compiler.models.spec import ArchitectureDims

SHARES = 16  # most shares of one row's context
SHARE_PAGES = 8  # pages that are worth a share of their own


@dataclass(frozen=True)
class GpuAttention:
    """The three steps; `part` is float32 [rows, SHARES, heads, head_dim + 2]: values, then largest score, then mass."""

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


def gpu_attention(dims: ArchitectureDims) -> GpuAttention:
    """Kernels for these dimensions."""
    append = _appender(dims)
    return GpuAttention(dims.head_dim + 2, append, _attender(dims), _merger(dims))


def _appender(dims: ArchitectureDims):
    hd, heads, kv_heads = dims.head_dim, dims.heads, dims.kv_heads
    half = hd // 2
    scale = 1.0 / dims.score_width**0.5

    @T.inline
    def load_head(t, pair, squares, qkv, row, head, bias, layer):
        """The two columns of a head that a thread turns, with the bias, and the sum of their squares."""
        for i in T.unroll(2):
            pair[t, i] = qkv[row, head * hd + i * half + t]
            if dims.qkv_bias:
                pair[t, i] = pair[t, i] + bias[layer, head * hd + i * half + t]
        squares[t] = fma(pair[t, 0], pair[t, 0], pair[t, 1] * pair[t, 1])

    @T.inline
    def norm_head(t, pair, squares, gain, layer, own):
        own[t, 0] = f32(0)
        for i in T.serial(half):
            own[t, 0] = own[t, 0] + squares[i]
        own[t, 0] = f32(1) / T.sqrt(own[t, 0] * f32(1.0 / dims.score_width) + f32(dims.rms_eps))
        for i in T.unroll(2):
            pair[t, i] = pair[t, i] * own[t, 0] * gain[layer, i * half + t]

    @T.inline
    def turn(t, pair, turned, rope, position, factor):
        turned[t, 0] = fma(pair[t, 0], rope[position, t], -(pair[t, 1] * rope[position, half + t])) * f32(factor)
        turned[t, 1] = fma(pair[t, 1], rope[position, t], pair[t, 0] * rope[position, half + t]) * f32(factor)

    @T.inline
    def put_head(t, pair, turned, qkv, row, head, rope, position, page, keys, values, layer):
        """Queries go back where they came from, keys and values to their page."""
        if head < heads:
            turn(t, pair, turned, rope, position, scale)
            for i in T.unroll(2):
                qkv[row, head * hd + i * half + t] = turned[t, i]
        else:
            if head < heads + kv_heads:
                turn(t, pair, turned, rope, position, 1.0)
                for i in T.unroll(2):
                    keys[layer, page, head - heads, i * half + t, position % PAGE_TOKENS] = T.cast(
                        turned[t, i], "float16"
                    )
            else:
                for i in T.unroll(2):
                    values[layer, page, head - heads - kv_heads, position % PAGE_TOKENS, i * half + t] = T.cast(
                        pair[t, i], "float16"
                    )

    @T.inline
    def append(rows, qkv, frame, table, stride, rope, keys, values, layer, bias, query_gains, key_gains):
        for row in T.thread_binding(rows, "blockIdx.x"):
            for head in T.thread_binding(heads + 2 * kv_heads, "blockIdx.y"):
                squares = T.alloc_buffer((half,), "float32", scope="shared")
                pair = T.alloc_buffer((half, 2), "float32", scope="local")
                turned = T.alloc_buffer((half, 2), "float32", scope="local")
                own = T.alloc_buffer((half, 1), "float32", scope="local")
                for t in T.thread_binding(half, "threadIdx.x"):
                    load_head(t, pair, squares, qkv, row, head, bias, layer)
                for t in T.thread_binding(half, "threadIdx.x"):
                    if dims.qk_norm:
                        if head < heads:
                            norm_head(t, pair, squares, query_gains, layer, own)
                        else:
                            if head < heads + kv_heads:
                                norm_head(t, pair, squares, key_gains, layer, own)
                    put_head(
                        t,
                        pair,
                        turned,
                        qkv,
                        row,
                        head,
                        rope,
                        frame[row],
                        frame[table + frame[rows + row] * stride + frame[row] // PAGE_TOKENS],
                        keys,
                        values,
                        layer,
                    )

    return append


def _attender(dims: ArchitectureDims):
    hd, kv_heads, heads = dims.head_dim, dims.kv_heads, dims.heads
    repeat = heads // kv_heads
    threads = 2 * hd  # of each dimension two, which take the even and the odd tokens
    tile = threads  # tokens whose scores are computed at a time
    sixteenth = tile // JOINED
    passes = -(-repeat * JOINED // threads)

    def start_of(position, share, step):
        """The first token of a tile."""
        return first_page(position, share) * PAGE_TOKENS + step * tile

    def end_of(position, share):
        """The token with which a share ends: the row itself sees nothing after it."""
        return T.min(position + 1, first_page(position, share + 1) * PAGE_TOKENS)

    def steps_of(position, share):
        """Tiles of a share; none where the row's context has fewer shares."""
        return T.Select(
            share < shares_of(position), (end_of(position, share) - start_of(position, share, 0) + tile - 1) // tile, 0
        )

    @T.inline
    def score_token(t, q, k, token, end, frame, pages, keys, layer, score, own):
        """Scores of one token with all query heads of a KV head; tokens past the end score nothing."""
        for r in T.unroll(repeat):
            own[t, r] = f32(EMPTY)
        if token < end:
            for r in T.unroll(repeat):
                own[t, r] = f32(0)
            for d in T.serial(hd):
                for r in T.unroll(repeat):
                    own[t, r] = fma(
                        T.cast(keys[layer, frame[pages + token // PAGE_TOKENS], k, d, token % PAGE_TOKENS], "float32"),
                        q[r, d],
                        own[t, r],
                    )
        for r in T.unroll(repeat):
            score[r, t] = own[t, r]

    @T.inline
    def fold_part(t, score, parts, fold, r, i):
        parts[r, i] = score[r, i * sixteenth]
        for j in T.serial(1, sixteenth):
            parts[r, i] = fold(parts[r, i], score[r, i * sixteenth + j])

    @T.inline
    def fold_sixteenths(t, score, parts, fold):
        """Of each query head's row of `score`, 16 parts of the tile; `fold` joins two values."""
        for i in T.unroll(passes):
            if i * threads + t < repeat * JOINED:
                fold_part(t, score, parts, fold, (i * threads + t) // JOINED, (i * threads + t) % JOINED)

    @T.inline
    def weigh(t, parts, score, top, fade, mass):
        """Scores become weights; what was summed before fades by how much the largest score has grown."""
        for r in T.unroll(repeat):
            fade[t, r] = top[t, r]
            for i in T.serial(JOINED):
                top[t, r] = T.max(top[t, r], parts[r, i])
            fade[t, r] = T.exp(fade[t, r] - top[t, r])
            score[r, t] = T.exp(score[r, t] - top[t, r])
            mass[t, r] = fma(mass[t, r], fade[t, r], score[r, t])

    @T.inline
    def add_token(t, r_token, token, k, frame, pages, values, layer, score, acc):
        for r in T.unroll(repeat):
            acc[t, r] = fma(
                score[r, r_token],
                T.cast(values[layer, frame[pages + token // PAGE_TOKENS], k, token % PAGE_TOKENS, t % hd], "float32"),
                acc[t, r],
            )

    @T.inline
    def add_values(t, k, start, end, frame, pages, values, layer, score, fade, acc):
        for r in T.unroll(repeat):
            acc[t, r] = acc[t, r] * fade[t, r]
        for i in T.serial(hd):
            if start + i * 2 + t // hd < end:
                add_token(t, i * 2 + t // hd, start + i * 2 + t // hd, k, frame, pages, values, layer, score, acc)

    @T.inline
    def finish(row, k, share, position, score, parts, top, mass, acc, part):
        """Sums over the threads, and the result of the share."""
        for t in T.thread_binding(threads, "threadIdx.x"):
            for r in T.unroll(repeat):
                score[r, t] = mass[t, r]
        for t in T.thread_binding(threads, "threadIdx.x"):
            fold_sixteenths(t, score, parts, add)
        for t in T.thread_binding(threads, "threadIdx.x"):
            for r in T.unroll(repeat):
                score[r, t] = acc[t, r]
                mass[t, r] = f32(0)
                for i in T.serial(JOINED):
                    mass[t, r] = mass[t, r] + parts[r, i]
        for t in T.thread_binding(threads, "threadIdx.x"):
            if share < shares_of(position):
                for r in T.unroll(repeat):
                    if t < hd:
                        part[row, share, k * repeat + r, t] = score[r, t] + score[r, t + hd]
                    if t == 0:
                        part[row, share, k * repeat + r, hd] = top[t, r]
                        part[row, share, k * repeat + r, hd + 1] = mass[t, r]

    @T.inline
    def attend_share(row, k, share, position, pages, qkv, frame, keys, values, layer, part):
        q = T.alloc_buffer((repeat, hd), "float32", scope="shared")
        score = T.alloc_buffer((repeat, tile), "float32", scope="shared")
        parts = T.alloc_buffer((repeat, JOINED), "float32", scope="shared")
        own = T.alloc_buffer((threads, repeat), "float32", scope="local")
        top = T.alloc_buffer((threads, repeat), "float32", scope="local")
        fade = T.alloc_buffer((threads, repeat), "float32", scope="local")
        mass = T.alloc_buffer((threads, repeat), "float32", scope="local")
        acc = T.alloc_buffer((threads, repeat), "float32", scope="local")
        for t in T.thread_binding(threads, "threadIdx.x"):
            for r in T.unroll(repeat):
                if t < hd:
                    q[r, t] = qkv[row, (k * repeat + r) * hd + t]
                top[t, r] = f32(EMPTY)
                mass[t, r] = f32(0)
                acc[t, r] = f32(0)
        for step in T.serial(steps_of(position, share)):
            for t in T.thread_binding(threads, "threadIdx.x"):
                score_token(
                    t,
                    q,
                    k,
                    start_of(position, share, step) + t,
                    end_of(position, share),
                    frame,
                    pages,
                    keys,
                    layer,
                    score,
                    own,
                )
            for t in T.thread_binding(threads, "threadIdx.x"):
                fold_sixteenths(t, score, parts, T.max)
            for t in T.thread_binding(threads, "threadIdx.x"):
                weigh(t, parts, score, top, fade, mass)
            for t in T.thread_binding(threads, "threadIdx.x"):
                add_values(
                    t,
                    k,
                    start_of(position, share, step),
                    end_of(position, share),
                    frame,
                    pages,
                    values,
                    layer,
                    score,
                    fade,
                    acc,
                )
        finish(row, k, share, position, score, parts, top, mass, acc, part)

    @T.inline
    def attend(rows, qkv, frame, table, stride, keys, values, layer, part):
        for k in T.thread_binding(kv_heads, "blockIdx.x"):
            for row in T.thread_binding(rows, "blockIdx.y"):
                for share in T.thread_binding(SHARES, "blockIdx.z"):
                    attend_share(
                        row,
                        k,
                        share,
                        frame[row],
                        table + frame[rows + row] * stride,
                        qkv,
                        frame,
                        keys,
                        values,
                        layer,
                        part,
                    )

    return attend


def _merger(dims: ArchitectureDims):
    hd = dims.head_dim

    @T.inline
    def merge(rows, part, frame, out):
        """Weighs the shares of every query head against each other."""
        for row in T.thread_binding(rows, "blockIdx.x"):
            for head in T.thread_binding(dims.heads, "blockIdx.y"):
                own = T.alloc_buffer((hd, 4), "float32", scope="local")
                for t in T.thread_binding(hd, "threadIdx.x"):
                    own[t, 0] = f32(EMPTY)
                    own[t, 1] = f32(0)
                    own[t, 2] = f32(0)
                    for share in T.serial(shares_of(frame[row])):
                        own[t, 0] = T.max(own[t, 0], part[row, share, head, hd])
                    for share in T.serial(shares_of(frame[row])):
                        own[t, 3] = T.exp(part[row, share, head, hd] - own[t, 0])
                        own[t, 1] = fma(own[t, 3], part[row, share, head, hd + 1], own[t, 1])
                        own[t, 2] = fma(own[t, 3], part[row, share, head, t], own[t, 2])
                    out[row, head * hd + t] = own[t, 2] / own[t, 1]

    return merge
