"""The attention of one layer as a function of its own, and random batches to run it on.

The function is the regions of `compiler.kernels.blocks` from rotary embedding to merging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.activations import ActivationFormat
from compiler.kernels.attention import PAGE_TOKENS, SHARES, attention_kernels, tile_rows_of
from compiler.kernels.expansion import quick_expansion
from compiler.models.spec import ArchitectureDims
from compiler.targets.row import CpuTarget
from tests.compiler.kernel_calls import activation_format, aligned, aligned_zeros, compile_function

PAGES = 20  # of each session: enough for the most shares of a context
SESSIONS = 4


def attention_function(dims: ArchitectureDims, acts: ActivationFormat, tile_queries: int) -> Any:
    """attention(nt, pos, slot, pages, rope, keys, values, bias, query_norm, key_norm, qkv, score, part, av, scales)."""
    NQ, HD, H, KVH = dims.qkv, dims.head_dim, dims.heads, dims.kv_heads
    kernels = attention_kernels(dims, acts.store, tile_queries)
    M, NT = tirx.Var("M", "int32"), tirx.Var("NT", "int32")
    P, S, PMAX, CTX = (tirx.Var(name, "int32") for name in ("P", "S", "PMAX", "CTX"))
    barrier = "pragma_parallel_barrier_when_finish"

    @T.prim_func
    def attention(
        nt: T.int32,
        pos: T.Buffer((M,), "int32"),
        slot: T.Buffer((M,), "int32"),
        pages: T.Buffer((S, PMAX), "int32"),
        rope: T.Buffer((CTX, HD), "float32"),
        keys: T.Buffer((1, P, KVH, HD, PAGE_TOKENS), "float16"),
        values: T.Buffer((1, P, KVH, PAGE_TOKENS, HD), "float16"),
        bias: T.Buffer((1, NQ), "float32"),
        query_norm: T.Buffer((1, HD), "float32"),
        key_norm: T.Buffer((1, HD), "float32"),
        qkv: T.Buffer((M, NQ), "float32"),
        score: T.Buffer((NT, PMAX, kernels.score_columns), "float32"),
        part: T.Buffer((M, SHARES * KVH, kernels.part_columns), "float32"),
        out: T.Buffer((M, acts.values_stride(H * HD)), acts.values_dtype),
        scales: T.Buffer((M, H * HD // 32 * 2), "float32"),
    ):
        T.func_attr({"global_symbol": "attention", "tirx.noalias": True})
        with T.attr(T.int32(0), "pragma_parallel_launch_point", T.int32(1)):
            with T.attr(T.int32(0), barrier, T.int32(1)):
                for th in T.parallel(nt):
                    kernels.append(th, nt, M, qkv, pos, slot, pages, rope, keys, values, 0, bias, query_norm, key_norm)
            with T.attr(T.int32(0), barrier, T.int32(1)):
                for th in T.parallel(nt):
                    kernels.attend(th, nt, M, qkv, pos, slot, pages, keys, values, 0, score, part)
            with T.attr(T.int32(0), barrier, T.int32(1)):
                for th in T.parallel(nt):
                    kernels.merge(th, nt, M, part, pos, out, scales)

    return attention


@dataclass(frozen=True)
class Batch:
    """Rows of several sessions. `keys` and `values` hold what came before; a run adds what the rows bring."""

    dims: ArchitectureDims
    positions: np.ndarray
    slots: np.ndarray
    pages: np.ndarray
    rope: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    query_norm: np.ndarray
    key_norm: np.ndarray
    qkv: np.ndarray


@lru_cache
def compile_attention(dims: ArchitectureDims, target: CpuTarget, quantised: bool) -> Callable[..., None]:
    with quick_expansion():
        function = attention_function(dims, activation_format(dims, quantised), target.tile_queries)
    return compile_function(function, target)


def random_batch(dims: ArchitectureDims, seed: int, lengths: list[tuple[int, int]], mixed: bool) -> Batch:
    """`mixed`: rows of the sessions take turns, or else they stand one session after the other."""
    random = np.random.default_rng(seed)
    hd, kv, pages = dims.head_dim, dims.kv_heads, PAGES * SESSIONS
    slots = np.concatenate([[slot] * new for slot, (_, new) in enumerate(lengths)])
    if mixed:
        random.shuffle(slots)
    positions = np.zeros_like(slots)
    for slot, (past, new) in enumerate(lengths):
        positions[slots == slot] = past + np.arange(new)
    angles = random.uniform(0, 2 * np.pi, (PAGES * PAGE_TOKENS, hd // 2))

    def normal(*shape: int) -> np.ndarray:
        return aligned(random.normal(size=shape).astype(np.float32))

    return Batch(
        dims,
        aligned(positions.astype(np.int32)),
        aligned(slots.astype(np.int32)),
        aligned(random.permutation(pages).reshape(SESSIONS, PAGES).astype(np.int32)),
        aligned(np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)),
        aligned(random.normal(size=(1, pages, kv, hd, PAGE_TOKENS)).astype(np.float16)),
        aligned(random.normal(size=(1, pages, kv, PAGE_TOKENS, hd)).astype(np.float16)),
        normal(1, dims.qkv),
        aligned(1 + normal(1, hd) / 10),
        aligned(1 + normal(1, hd) / 10),
        normal(len(slots), dims.qkv),
    )


def run(batch: Batch, target: CpuTarget, rows: slice = slice(None), threads: int = 1) -> np.ndarray:
    """The merged heads of some rows, float32 [rows, heads * head_dim]."""
    out, _ = run_stored(batch, target, False, rows, threads)
    return out[:, : batch.dims.attention]


def run_stored(
    batch: Batch, target: CpuTarget, quantised: bool, rows: slice, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merged heads as they are stored: values and scales."""
    dims, acts = batch.dims, activation_format(batch.dims, quantised)
    qkv = aligned(batch.qkv[rows])
    repeat = dims.heads // dims.kv_heads
    tile = tile_rows_of(dims, target.tile_queries) * repeat * PAGE_TOKENS
    values = aligned_zeros((len(qkv), acts.values_stride(dims.attention)), acts.values_dtype)
    scales = aligned_zeros((len(qkv), dims.attention // 32 * 2), np.float32)
    compile_attention(dims, target, quantised)(
        threads,
        aligned(batch.positions[rows]),
        aligned(batch.slots[rows]),
        batch.pages,
        batch.rope,
        batch.keys,
        batch.values,
        batch.bias,
        batch.query_norm,
        batch.key_norm,
        qkv,
        aligned_zeros((threads, PAGES, tile), np.float32),
        aligned_zeros((len(qkv), SHARES * dims.kv_heads, repeat * (dims.head_dim + 16)), np.float32),
        values,
        scales,
    )
    return values, scales
