"""`blocks`: any number of decoder blocks over any number of rows, in one call and one launch of the threads.

Rows carry their own position and slot (a row of the page table), so that a batch mixes sessions, prompts and generated
tokens. Rows of one session stand in ascending order of position. Nine regions per block, a barrier after each.

A buffer that is allocated between the launch point and a `T.parallel` loop would be shared by all threads; every local
buffer is therefore allocated inside the loop over threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.activations import ActivationFormat
from compiler.kernels.attention import SHARES, attention_kernels, tile_rows_of
from compiler.kernels.linear import WeightFormat, multiplier
from compiler.kernels.vector import f32, lanes, splat, start_clock, stop_clock, store_exp
from compiler.models.spec import ArchitectureDims
from mec_platform.domain.kernel_contract import PAGE_TOKENS

# What the regions do, in order. Each adds the clock ticks of thread 0 to its own entry of `clock`.
REGIONS = (
    "attention_norm",
    "qkv",
    "rope_append",
    "attention",
    "merge",
    "output",
    "ffn_norm",
    "gate_up",
    "down",
)


def clock_function() -> Any:
    """clock(out): the ticks that regions are timed in, now."""

    @T.prim_func
    def clock(out: T.Buffer((1,), "int64")):
        T.func_attr({"global_symbol": "clock", "tirx.noalias": True})
        out[0] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")

    return clock


def block_weights(dims: ArchitectureDims) -> list[str]:
    """The packed tensors that `blocks` takes, in order. A tensor that the model lacks is never read: any stands in."""
    norms = ["blocks.attention_norm", "blocks.ffn_norm"]
    bias = "blocks.qkv.bias" if dims.qkv_bias else norms[0]
    heads = ["blocks.query_norm", "blocks.key_norm"] if dims.qk_norm else [norms[0], norms[0]]
    matrices = ("qkv", "output", "gate", "up", "down")
    return [*norms, bias, *heads, *(f"blocks.{name}.{part}" for name in matrices for part in ("q", "s"))]


def blocks_scratch(dims: ArchitectureDims, acts: ActivationFormat, tile_queries: int) -> list[dict]:
    """Type and shape of every scratch argument; "rows", "threads" and "pages" (of a context) stand for the caller's limits."""

    def activations(columns: int) -> list[tuple[str, list]]:
        groups = columns // 32
        return [
            (acts.values_dtype, ["rows", acts.values_stride(columns)]),
            ("float32", ["rows", groups * 2]),
        ]

    repeat = dims.heads // dims.kv_heads
    parts = repeat * (dims.head_dim + 16)
    entries = [
        *activations(dims.hidden),
        ("float32", ["rows", dims.qkv]),
        ("float32", ["threads", "pages", tile_rows_of(dims, tile_queries) * repeat * PAGE_TOKENS]),
        ("float32", ["rows", SHARES * dims.kv_heads, parts]),
        *activations(dims.attention),
        ("float32", ["threads", "rows", 32]),
        *activations(dims.ffn),
        ("int64", [len(REGIONS)]),
    ]
    return [{"dtype": dtype, "shape": shape} for dtype, shape in entries]


def blocks_function(
    dims: ArchitectureDims, matrices: Mapping[str, WeightFormat], acts: ActivationFormat, tile_queries: int
):
    """The TIR function; after the KV cache its arguments are `block_weights`, then the scratch of `blocks_scratch`."""
    D, NQ, FF, HD, H, KVH = dims.hidden, dims.qkv, dims.ffn, dims.head_dim, dims.heads, dims.kv_heads
    GD, GA, GF = D // 32, dims.attention // 32, FF // 32
    VT = acts.values_dtype
    XS, AS, FS = (acts.values_stride(columns) for columns in (D, dims.attention, FF))
    qkv_w, out_w, gate_up_w, down_w = (matrices[name] for name in ("qkv", "output", "gate_up", "down"))
    attention = attention_kernels(dims, acts.store, tile_queries)
    normalise, store = acts.normalise, acts.store
    L, M, NT = tirx.Var("L", "int32"), tirx.Var("M", "int32"), tirx.Var("NT", "int32")
    P, S, PMAX, CTX = (tirx.Var(name, "int32") for name in ("P", "S", "PMAX", "CTX"))
    R = len(REGIONS)
    barrier = "pragma_parallel_barrier_when_finish"

    def q_of(weights, n, k):
        return T.Buffer((L, *weights.q_shape(n, k)), weights.q_dtype)

    def s_of(weights, n, k):
        return T.Buffer((L, *weights.s_shape(n, k)), "float16")

    @T.prim_func
    def blocks(
        h: T.Buffer((M, D), "float32"),
        nt: T.int32,
        pos: T.Buffer((M,), "int32"),
        slot: T.Buffer((M,), "int32"),
        pages: T.Buffer((S, PMAX), "int32"),
        rope: T.Buffer((CTX, HD), "float32"),
        keys: T.Buffer((L, P, KVH, HD, PAGE_TOKENS), "float16"),
        values: T.Buffer((L, P, KVH, PAGE_TOKENS, HD), "float16"),
        n1: T.Buffer((L, D), "float32"),
        n2: T.Buffer((L, D), "float32"),
        qkv_bias: T.Buffer((L, NQ if dims.qkv_bias else D), "float32"),
        query_norm: T.Buffer((L, HD if dims.qk_norm else D), "float32"),
        key_norm: T.Buffer((L, HD if dims.qk_norm else D), "float32"),
        wqkv: q_of(qkv_w, NQ, D),
        sqkv: s_of(qkv_w, NQ, D),
        wo: q_of(out_w, D, H * HD),
        so: s_of(out_w, D, H * HD),
        wg: q_of(gate_up_w, FF, D),
        sg: s_of(gate_up_w, FF, D),
        wu: q_of(gate_up_w, FF, D),
        su: s_of(gate_up_w, FF, D),
        wd: q_of(down_w, D, FF),
        sd: s_of(down_w, D, FF),
        xv: T.Buffer((M, XS), VT),
        xs: T.Buffer((M, GD * 2), "float32"),
        qkv: T.Buffer((M, NQ), "float32"),
        score: T.Buffer((NT, PMAX, attention.score_columns), "float32"),
        part: T.Buffer((M, SHARES * KVH, attention.part_columns), "float32"),
        av: T.Buffer((M, AS), VT),
        as_: T.Buffer((M, GA * 2), "float32"),
        gate: T.Buffer((NT, M, 32), "float32"),
        fv: T.Buffer((M, FS), VT),
        fs: T.Buffer((M, GF * 2), "float32"),
        clock: T.Buffer((R,), "int64"),
    ):
        T.func_attr({"global_symbol": "blocks", "tirx.noalias": True})

        @T.inline
        def put_qkv(left, right, offset, row, block, thread):
            qkv[row, lanes(block * 32)] = left[lanes(offset)]
            qkv[row, lanes(block * 32 + 16)] = right[lanes(offset)]

        @T.inline
        def add_residual(left, right, offset, row, block, thread):
            h[row, lanes(block * 32)] = h[row, lanes(block * 32)] + left[lanes(offset)]
            h[row, lanes(block * 32 + 16)] = h[row, lanes(block * 32 + 16)] + right[lanes(offset)]

        @T.inline
        def put_gate(left, right, offset, row, block, thread):
            gate[thread, row, lanes(0)] = left[lanes(offset)]
            gate[thread, row, lanes(16)] = right[lanes(offset)]

        @T.inline
        def put_up(left, right, offset, row, block, thread):
            e = T.alloc_buffer((32,), "float32")
            for t in T.unroll(2):
                store_exp(e, t * 16, splat(f32(0)) - gate[thread, row, lanes(t * 16)])
            e[lanes(0)] = (left[lanes(offset)] * gate[thread, row, lanes(0)]) / (splat(f32(1)) + e[lanes(0)])
            e[lanes(16)] = (right[lanes(offset)] * gate[thread, row, lanes(16)]) / (splat(f32(1)) + e[lanes(16)])
            store(e, 0, fv, fs, row, block)

        with T.attr(T.int32(0), "pragma_parallel_launch_point", T.int32(1)):
            for l in T.serial(L):
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 0, th)
                        for r in T.serial((M - th + nt - 1) // nt):
                            normalise(h, r * nt + th, n1, l, xv, xs)
                        stop_clock(clock, 0, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 1, th)
                        u_qkv = T.alloc_buffer(qkv_w.unpacked_shape(D), "uint32")
                        for b in T.serial(th * (NQ // 32) // nt, (th + 1) * (NQ // 32) // nt):
                            multiplier(qkv_w, put_qkv)(M, wqkv, sqkv, u_qkv, l, b, GD, xv, xs, th)
                        stop_clock(clock, 1, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 2, th)
                        attention.append(
                            th, nt, M, qkv, pos, slot, pages, rope, keys, values, l, qkv_bias, query_norm, key_norm
                        )
                        stop_clock(clock, 2, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 3, th)
                        attention.attend(th, nt, M, qkv, pos, slot, pages, keys, values, l, score, part)
                        stop_clock(clock, 3, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 4, th)
                        attention.merge(th, nt, M, part, pos, av, as_)
                        stop_clock(clock, 4, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 5, th)
                        u_out = T.alloc_buffer(out_w.unpacked_shape(dims.attention), "uint32")
                        for b in T.serial(th * (D // 32) // nt, (th + 1) * (D // 32) // nt):
                            multiplier(out_w, add_residual)(M, wo, so, u_out, l, b, GA, av, as_, th)
                        stop_clock(clock, 5, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 6, th)
                        for r in T.serial((M - th + nt - 1) // nt):
                            normalise(h, r * nt + th, n2, l, xv, xs)
                        stop_clock(clock, 6, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 7, th)
                        u_ffn = T.alloc_buffer(gate_up_w.unpacked_shape(D), "uint32")
                        for b in T.serial(th * (FF // 32) // nt, (th + 1) * (FF // 32) // nt):
                            multiplier(gate_up_w, put_gate)(M, wg, sg, u_ffn, l, b, GD, xv, xs, th)
                            multiplier(gate_up_w, put_up)(M, wu, su, u_ffn, l, b, GD, xv, xs, th)
                        stop_clock(clock, 7, th)
                with T.attr(T.int32(0), barrier, T.int32(1)):
                    for th in T.parallel(nt):
                        start_clock(clock, 8, th)
                        u_down = T.alloc_buffer(down_w.unpacked_shape(FF), "uint32")
                        for b in T.serial(th * (D // 32) // nt, (th + 1) * (D // 32) // nt):
                            multiplier(down_w, add_residual)(M, wd, sd, u_down, l, b, GF, fv, fs, th)
                        stop_clock(clock, 8, th)

    return blocks
