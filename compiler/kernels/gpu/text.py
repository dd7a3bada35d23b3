"""`head` on a GPU: the rows that a frame's draws ask for become logits."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.gpu.frame import DRAW_ROW, draw_setting
from compiler.kernels.gpu.linear import GpuWeight, gpu_multiplier
from compiler.kernels.gpu.rows import normaliser
from compiler.models.spec import ArchitectureDims


def gpu_head_scratch(dims: ArchitectureDims) -> list[dict]:
    """Type and shape of the scratch argument of `head`; "draws" stands for the caller's limit."""
    return [{"dtype": "float32", "shape": ["draws", dims.hidden]}]


def gpu_head_function(dims: ArchitectureDims, weights: GpuWeight):
    """head(h, frame, start, draws, norm, q, s, x, logits): final norm and all logits of the row of every draw."""
    D, V = dims.hidden, dims.vocab
    R, N, C = (tirx.Var(name, "int32") for name in ("R", "N", "C"))
    normalise = normaliser(dims, lambda frame, start, i: draw_setting(frame, start, i, DRAW_ROW))

    @T.prim_func
    def head(
        h: T.Buffer((R, D), "float32"),
        frame: T.Buffer((C,), "int32"),
        start: T.int32,
        draws: T.int32,
        norm: T.Buffer((1, D), "float32"),
        w: T.Buffer((1, *weights.q_shape(V, D)), weights.q_dtype),
        s: T.Buffer((1, *weights.s_shape(V, D)), "float16"),
        x: T.Buffer((N, D), "float32"),
        logits: T.Buffer((N, V), "float32"),
    ):
        T.func_attr({"global_symbol": "head", "tirx.noalias": True})

        @T.inline
        def put(value, row, output):
            logits[row, output] = value

        normalise(draws, h, frame, start, norm, 0, x)
        gpu_multiplier(weights, V, D, put)(draws, x, w, s, 0)

    return head
