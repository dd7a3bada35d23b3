"""Kernels that go over single rows: RMS norm, tokens to rows, and rows that arrive in a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.gpu.linear import GpuWeight
from compiler.kernels.gpu.threads import THREADS, add, as_float, f32, fma, join
from compiler.models.spec import ArchitectureDims


def normaliser(dims: ArchitectureDims, row_of: Callable[..., Any]):
    """RMS norm of rows of the model's width, a block each; row i of the result comes from `row_of(frame, start, i)`."""
    steps = -(-dims.hidden // THREADS)
    fold = join(THREADS, add, 0.0)

    @T.inline
    def normalise(rows, source, frame, start, gains, layer, out):
        for i in T.thread_binding(rows, "blockIdx.x"):
            shared = T.alloc_buffer((THREADS + 1,), "float32", scope="shared")
            own = T.alloc_buffer((THREADS, 1), "float32", scope="local")
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                own[t, 0] = f32(0)
                for step in T.serial(steps):
                    if step * THREADS + t < dims.hidden:
                        own[t, 0] = fma(
                            source[row_of(frame, start, i), step * THREADS + t],
                            source[row_of(frame, start, i), step * THREADS + t],
                            own[t, 0],
                        )
                shared[t] = own[t, 0]
            fold(shared, own)
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                own[t, 0] = f32(1) / T.sqrt(shared[THREADS] * f32(1.0 / dims.norm_width) + f32(dims.rms_eps))
                for step in T.serial(steps):
                    if step * THREADS + t < dims.hidden:
                        out[i, step * THREADS + t] = (
                            source[row_of(frame, start, i), step * THREADS + t]
                            * own[t, 0]
                            * gains[layer, step * THREADS + t]
                        )

    return normalise


def embed_function(dims: ArchitectureDims, weights: GpuWeight):
    """embed(frame, start, rows, h, q, s): h[r] = row frame[start + r] of the matrix."""
    D, V = dims.hidden, dims.vocab
    R, C = tirx.Var("R", "int32"), tirx.Var("C", "int32")
    q_shape, s_shape = (1, *weights.q_shape(V, D)), (1, *weights.s_shape(V, D))

    @T.prim_func
    def embed(
        frame: T.Buffer((C,), "int32"),
        start: T.int32,
        rows: T.int32,
        h: T.Buffer((R, D), "float32"),
        w: T.Buffer(q_shape, weights.q_dtype),
        s: T.Buffer(s_shape, "float16"),
    ):
        T.func_attr({"global_symbol": "embed", "tirx.noalias": True})

        @T.inline
        def put(t, row, token, column):
            h[row, column] = weights.weight(
                weights.element(w, 0, token // 32, column // 32, weights.place(column % 32), token % 32),
                column % 32,
                weights.scale(s, 0, token // 32, column // 32, 0, token % 32),
                weights.scale(s, 0, token // 32, column // 32, 1, token % 32),
            )

        for r in T.thread_binding(rows, "blockIdx.x"):
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                for step in T.serial(-(-D // THREADS)):
                    if step * THREADS + t < D:
                        put(t, r, frame[start + r], step * THREADS + t)

    return embed


def receive_function(dims: ArchitectureDims):
    """receive(frame, start, rows, h): hidden rows out of a frame."""
    D = dims.hidden
    R, C = tirx.Var("R", "int32"), tirx.Var("C", "int32")

    @T.prim_func
    def receive(frame: T.Buffer((C,), "int32"), start: T.int32, rows: T.int32, h: T.Buffer((R, D), "float32")):
        T.func_attr({"global_symbol": "receive", "tirx.noalias": True})
        for r in T.thread_binding(rows, "blockIdx.x"):
            for t in T.thread_binding(THREADS, "threadIdx.x"):
                for step in T.serial(-(-D // THREADS)):
                    if step * THREADS + t < D:
                        h[r, step * THREADS + t] = as_float(frame[start + r * D + step * THREADS + t])

    return receive
