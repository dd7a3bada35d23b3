"""`embed`: tokens to hidden rows; `head`: hidden rows to logits. A tied model packs one matrix for both."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.activations import ActivationFormat
from compiler.kernels.linear import WeightFormat, multiplier
from compiler.kernels.vector import lanes
from compiler.models.spec import ArchitectureDims

EMBED_WEIGHTS = ("embed.q", "embed.s")
HEAD_WEIGHTS = ("head.norm", "head.q", "head.s")


def head_scratch(dims: ArchitectureDims, acts: ActivationFormat) -> list[dict]:
    """Type and shape of the scratch arguments of `head`; "rows" stands for the caller's limit."""
    groups = dims.hidden // 32
    return [
        {"dtype": acts.values_dtype, "shape": ["rows", acts.values_stride(dims.hidden)]},
        {"dtype": "float32", "shape": ["rows", groups * 2]},
    ]


def embed_function(dims: ArchitectureDims, weights: WeightFormat):
    """embed(tokens, h, q, s): h[r] = row tokens[r] of the matrix."""
    D, V = dims.hidden, dims.vocab
    M = tirx.Var("M", "int32")
    q_shape, s_shape = (1, *weights.q_shape(V, D)), (1, *weights.s_shape(V, D))
    scaled = weights.scaled

    @T.prim_func
    def embed(
        tokens: T.Buffer((M,), "int32"),
        h: T.Buffer((M, D), "float32"),
        w: T.Buffer(q_shape, weights.q_dtype),
        s: T.Buffer(s_shape, "float16"),
    ):
        T.func_attr({"global_symbol": "embed", "tirx.noalias": True})
        for r in T.serial(M):
            for k in T.serial(D):
                if scaled:
                    h[r, k] = T.call_llvm_pure_intrin(
                        "float32",
                        "llvm.fma",
                        T.cast(
                            T.bitwise_and(
                                T.shift_right(
                                    w[0, tokens[r] // 32, k // 32, k % 32 // 4, tokens[r] % 32 // 16, tokens[r] % 16],
                                    T.cast(k % 4 * 8, "uint32"),
                                ),
                                T.uint32(255),
                            ),
                            "float32",
                        ),
                        T.cast(s[0, tokens[r] // 32, k // 32, tokens[r] % 32 // 16, tokens[r] % 16], "float32"),
                        T.cast(s[0, tokens[r] // 32, k // 32, 2 + tokens[r] % 32 // 16, tokens[r] % 16], "float32"),
                    )
                else:
                    h[r, k] = weights.read(w[0, tokens[r] // 32, k, tokens[r] % 32])

    return embed


def head_function(dims: ArchitectureDims, weights: WeightFormat, acts: ActivationFormat):
    """head(h, nt, norm, q, s, values, scales, logits): final norm, then all logits of every row."""
    D, V = dims.hidden, dims.vocab
    G = D // 32
    M = tirx.Var("M", "int32")
    q_shape, s_shape = (1, *weights.q_shape(V, D)), (1, *weights.s_shape(V, D))
    normalise = acts.normalise

    @T.prim_func
    def head(
        h: T.Buffer((M, D), "float32"),
        nt: T.int32,
        norm: T.Buffer((1, D), "float32"),
        w: T.Buffer(q_shape, weights.q_dtype),
        s: T.Buffer(s_shape, "float16"),
        xv: T.Buffer((M, acts.values_stride(D)), acts.values_dtype),
        xs: T.Buffer((M, G * 2), "float32"),
        logits: T.Buffer((M, V), "float32"),
    ):
        T.func_attr({"global_symbol": "head", "tirx.noalias": True})

        @T.inline
        def put(left, right, offset, row, block, thread):
            logits[row, lanes(block * 32)] = left[lanes(offset)]
            logits[row, lanes(block * 32 + 16)] = right[lanes(offset)]

        with T.attr(T.int32(0), "pragma_parallel_launch_point", T.int32(1)):
            with T.attr(T.int32(0), "pragma_parallel_barrier_when_finish", T.int32(1)):
                for th in T.parallel(nt):
                    for r in T.serial((M - th + nt - 1) // nt):
                        normalise(h, r * nt + th, norm, 0, xv, xs)
            with T.attr(T.int32(0), "pragma_parallel_barrier_when_finish", T.int32(1)):
                for th in T.parallel(nt):
                    u = T.alloc_buffer(weights.unpacked_shape(D), "uint32")
                    for b in T.serial(th * (V // 32) // nt, (th + 1) * (V // 32) // nt):
                        multiplier(weights, put)(M, w, s, u, 0, b, G, xv, xs, th)

    return head
