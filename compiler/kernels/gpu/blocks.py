"""`blocks` on a GPU: any number of decoder blocks over any number of rows in one call, a launch for each region.

Arguments that the CPU's `blocks` takes one by one come in the frame (`compiler.kernels.gpu.frame`). Rows of one session
stand in ascending order of position.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.attention import PAGE_TOKENS
from compiler.kernels.gpu.attention import SHARES, gpu_attention
from compiler.kernels.gpu.linear import GpuWeight, gpu_multiplier
from compiler.kernels.gpu.rows import normaliser
from compiler.kernels.gpu.threads import f32
from compiler.models.spec import ArchitectureDims


def gpu_blocks_scratch(dims: ArchitectureDims) -> list[dict]:
    """Type and shape of every scratch argument; "rows" stands for the caller's limit."""
    shapes = [
        ["rows", dims.hidden],
        ["rows", dims.qkv],
        ["rows", SHARES, dims.heads, dims.head_dim + 2],
        ["rows", dims.attention],
        ["rows", dims.ffn],
    ]
    return [{"dtype": "float32", "shape": shape} for shape in shapes]


def gpu_blocks_function(dims: ArchitectureDims, matrices: Mapping[str, GpuWeight]):
    """The TIR function over layers [first, stop) of L; `regions` of each run, in order: all, except to time them."""
    D, NQ, FF, HD, H, KVH = dims.hidden, dims.qkv, dims.ffn, dims.head_dim, dims.heads, dims.kv_heads
    qkv_w, out_w, gate_up_w, down_w = (matrices[name] for name in ("qkv", "output", "gate_up", "down"))
    attention = gpu_attention(dims)
    normalise = normaliser(dims, lambda frame, start, i: i)
    L, R, C, P, CTX = (tirx.Var(name, "int32") for name in ("L", "R", "C", "P", "CTX"))

    def q_of(weights, n, k):
        return T.Buffer((L, *weights.q_shape(n, k)), weights.q_dtype)

    def s_of(weights, n, k):
        return T.Buffer((L, *weights.s_shape(n, k)), "float16")

    @T.prim_func
    def blocks(
        h: T.Buffer((R, D), "float32"),
        rows: T.int32,
        frame: T.Buffer((C,), "int32"),
        table: T.int32,
        stride: T.int32,
        regions: T.int32,
        first: T.int32,
        stop: T.int32,
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
        x: T.Buffer((R, D), "float32"),
        qkv: T.Buffer((R, NQ), "float32"),
        part: T.Buffer((R, SHARES, H, attention.part_columns), "float32"),
        att: T.Buffer((R, H * HD), "float32"),
        gate: T.Buffer((R, FF), "float32"),
    ):
        T.func_attr({"global_symbol": "blocks", "tirx.noalias": True})

        @T.inline
        def put_qkv(value, row, output):
            qkv[row, output] = value

        @T.inline
        def add_residual(value, row, output):
            h[row, output] = h[row, output] + value

        @T.inline
        def put_gate(value, row, output):
            gate[row, output] = value

        @T.inline
        def put_up(value, row, output):
            gate[row, output] = value * gate[row, output] / (f32(1) + T.exp(f32(0) - gate[row, output]))

        for l in T.serial(first, stop):
            if regions > 0:
                normalise(rows, h, frame, 0, n1, l, x)
            if regions > 1:
                gpu_multiplier(qkv_w, NQ, D, put_qkv)(rows, x, wqkv, sqkv, l)
            if regions > 2:
                attention.append(rows, qkv, frame, table, stride, rope, keys, values, l, qkv_bias, query_norm, key_norm)
            if regions > 3:
                attention.attend(rows, qkv, frame, table, stride, keys, values, l, part)
            if regions > 4:
                attention.merge(rows, part, frame, att)
            if regions > 5:
                gpu_multiplier(out_w, D, H * HD, add_residual)(rows, att, wo, so, l)
            if regions > 6:
                normalise(rows, h, frame, 0, n2, l, x)
            if regions > 7:
                gpu_multiplier(gate_up_w, FF, D, put_gate)(rows, x, wg, sg, l)
                gpu_multiplier(gate_up_w, FF, D, put_up)(rows, x, wu, su, l)
            if regions > 8:
                gpu_multiplier(down_w, D, FF, add_residual)(rows, gate, wd, sd, l)

    return blocks
