"""Compiles single kernels for this machine, and calls them with arrays that lie as the kernels' callers lay theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels import activations
from compiler.kernels.activations import ActivationFormat
from compiler.kernels.expansion import quick_expansion
from compiler.kernels.linear import multiplier, weight_format
from compiler.kernels.vector import lanes
from compiler.models.spec import ArchitectureDims
from compiler.passes.pipeline import adapt
from compiler.quantisation import INTEGER_BITS
from compiler.targets.cpu import CPU_TARGETS
from compiler.targets.row import CpuTarget

_FLAGS = {word for line in Path("/proc/cpuinfo").read_text().splitlines() for word in line.split()}
# The best row of every way to multiply bytes that this machine has, best first.
_BEST = {row.dot: row for row in reversed(CPU_TARGETS) if row.features <= _FLAGS}
BYTE_TARGETS = [*reversed(_BEST.values()), replace(_BEST["pmaddubsw-256"], name="portable", dot="portable")]
# One row for every level of x86-64; the best of them first.
RUNNABLE = [row for row in BYTE_TARGETS if row.dot not in ("vpdpbusd-256", "portable")]
# Those that fuse a product and a sum give the same bits.
FUSING = [row for row in RUNNABLE if "fma" in row.features]


def small_dims(**changes: Any) -> ArchitectureDims:
    """The smallest dimensions that the kernels take, changed."""
    smallest: dict[str, Any] = {
        "hidden": 32,
        "heads": 1,
        "kv_heads": 1,
        "head_dim": 32,
        "ffn": 32,
        "vocab": 32,
        "rms_eps": 1e-5,
    }
    sizes = smallest | changes
    return ArchitectureDims(**{"norm_width": sizes["hidden"], "score_width": sizes["head_dim"]} | sizes)


def activation_format(dims: ArchitectureDims, quantised: bool) -> ActivationFormat:
    """Rows as integers, or as floats."""
    return (activations.quantised if quantised else activations.plain)(dims)


def integers_of(values: np.ndarray, columns: int) -> np.ndarray:
    """The integers of quantised rows, int64 [M, columns/32, 32], without padding."""
    terms = values[:, : 2 * columns].reshape(len(values), -1, 2, 32).astype(np.int64)
    return 256 * terms[:, :, 0] + terms[:, :, 1]


def integer_rows(x: np.ndarray, row_scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of quantised rows: x is int64 [M, K], of which `row_scales` [M, K/32] are the scales."""
    rows, columns = x.shape
    groups = x.reshape(rows, -1, 32)
    high = (groups + 128) >> 8
    values = aligned_zeros((rows, activation_format(small_dims(), True).values_stride(columns)), np.int8)
    values[:, : 2 * columns] = np.stack([high, groups - 256 * high], axis=2).reshape(rows, -1)
    scales = np.stack([row_scales, row_scales * groups.sum(2)], axis=2).reshape(rows, -1)
    return values, scales.astype(np.float32)


def multiply_function(stored: str, target: CpuTarget) -> Any:
    """multiply(w, s, values, scales, out) of any width and any count of outputs and rows."""
    weights = weight_format(stored, target)
    dtype = activation_format(small_dims(), stored in INTEGER_BITS).values_dtype
    M, N, G, stride = (tirx.Var(name, "int32") for name in ("M", "N", "G", "stride"))
    strip = (G, weights.words, 2, 16) if weights.scaled else (G * 32, 32)

    with quick_expansion():

        @T.prim_func
        def multiply(
            w: T.Buffer((1, N, *strip), weights.q_dtype),
            s: T.Buffer((1, N, G, 4, 16), "float16"),
            values: T.Buffer((M, stride), dtype),
            scales: T.Buffer((M, G * 2), "float32"),
            out: T.Buffer((M, N * 32), "float32"),
        ):
            T.func_attr({"global_symbol": "multiply", "tirx.noalias": True})

            @T.inline
            def put(left, right, offset, row, block, thread):
                out[row, lanes(block * 32)] = left[lanes(offset)]
                out[row, lanes(block * 32 + 16)] = right[lanes(offset)]

            u = T.alloc_buffer((1, 1, 7, 8, 2, 16), "uint32")
            for b in T.serial(N):
                multiplier(weights, put)(M, w, s, u, 0, b, G, values, scales, 0)

    return multiply


def compile_function(function: Any, target: CpuTarget) -> Callable[..., None]:
    """`function`, to be called with numbers and with arrays of `aligned_zeros` or `aligned`."""
    name = str(function.attrs["global_symbol"])
    module = adapt(tvm.IRModule({name: function}), target)
    compiled = tvm.compile(module, target=tvm.target.Target(target.llvm()))[name]

    def call(*arguments: Any) -> None:
        compiled(*(tvm_ffi.from_dlpack(value) if isinstance(value, np.ndarray) else value for value in arguments))

    return call


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that start at a cache line."""
    count, item = int(np.prod(shape)), np.dtype(dtype)
    memory = np.zeros(count * item.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * item.itemsize].view(item).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line."""
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def scratch_arrays(entries: list[dict[str, Any]], **limits: int) -> list[np.ndarray]:
    """The scratch arguments that a kernel asks for, with its names for sizes filled in."""
    return [
        aligned_zeros(tuple(limits.get(size, size) for size in entry["shape"]), entry["dtype"]) for entry in entries
    ]
