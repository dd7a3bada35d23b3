"""What this machine can do at most, measured with kernels that do nothing else: the yardstick of benchmarks and profiles.

Each limit comes from one kernel over all threads: reading memory of a given size, and multiplying in a register tile
whose operands stay in the first cache, in float32 and in bytes. Peaks are those of the target's own instructions.
"""

# TVMScript bodies are parsed by TVM, not run by Python.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call, valid-type"

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.dot import DOTS
from compiler.kernels.vector import LANES, f32, fma, lanes, prefetch, splat
from compiler.linking import link_for
from compiler.passes.pipeline import adapt
from compiler.targets.choice import detect_local_target, find_cpu_target
from compiler.targets.row import CpuTarget

TILE_ROWS, TILE_LANES = 6, 2  # the register tile of the kernels: rows x vectors of 16
OPERANDS = 64  # distinct operands that a tile walks over: 12 KiB, in the first cache
STEPS = 2_000_000
LINE_WORDS = 64  # words that one step of the reading loop takes: four cache lines
PREFETCH_LINES = 16
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Limits:
    """Of all threads together: bytes read, float32 operations and byte operations (a product and a sum are two)."""

    read_bytes_per_s: float
    float_ops_per_s: float
    byte_ops_per_s: float

    def best(self, other: Limits) -> Limits:
        """The larger of both: a limit is what the machine has shown at least once."""
        return Limits(
            max(self.read_bytes_per_s, other.read_bytes_per_s),
            max(self.float_ops_per_s, other.float_ops_per_s),
            max(self.byte_ops_per_s, other.byte_ops_per_s),
        )


class LimitKernels:
    """The compiled kernels and their operands, for a thread count and a count of bytes to read.

    Compiling takes about a second. Make all calls from the thread that made the instance: TVM's pool of workers belongs
    to it.

    Raises:
        TargetError: no target fits this machine.
        BuildError: no linker, or it fails.
    """

    def __init__(self, threads: int, read_bytes: int) -> None:
        row = find_cpu_target(detect_local_target())
        module = tvm.IRModule(
            {"read": _read_function(), "floats": _tile_function(row, False), "bytes": _tile_function(row, True)}
        )
        self._module = tvm.compile(adapt(module, row), target=tvm.target.Target(row.llvm())).jit(
            fcompile=link_for(row.arch)
        )
        self._threads = threads
        os.environ["TVM_NUM_THREADS"] = str(threads)
        tvm_ffi.get_global_func("runtime.config_threadpool")(1, threads)
        random = np.random.default_rng(0)
        lines = max(1, read_bytes // (LINE_WORDS * 4 * threads)) * threads
        self._data = _filled((lines, LINE_WORDS), np.ones, np.int32)
        self._floats = _filled((OPERANDS, TILE_LANES * LANES), random.random, np.float32)
        self._factors = _filled((OPERANDS, TILE_ROWS), random.random, np.float32)
        self._sums = _aligned((threads, TILE_ROWS * TILE_LANES * LANES), np.float32)

    def measure(self) -> Limits:
        """The best of a few rounds, some 200 ms in all."""
        view, threads = tvm_ffi.from_dlpack, self._threads
        sums, whole = view(self._sums), view(self._sums.view(np.int32))
        data, floats, factors = view(self._data), view(self._floats), view(self._factors)
        words, columns = view(self._floats.view(np.uint32)), view(self._factors.view(np.int8))
        tiles = STEPS * TILE_ROWS * TILE_LANES * LANES * threads
        return Limits(
            read_bytes_per_s=self._data.nbytes / _seconds(lambda: self._module["read"](data, threads, whole)),
            float_ops_per_s=2 * tiles / _seconds(lambda: self._module["floats"](floats, factors, threads, STEPS, sums)),
            byte_ops_per_s=8 * tiles / _seconds(lambda: self._module["bytes"](words, columns, threads, STEPS, whole)),
        )


def _seconds(call: Callable[[], Any]) -> float:
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _aligned(shape: tuple[int, int], dtype: Any) -> np.ndarray:
    """Zeros at a multiple of 64 bytes, which the kernels' vector loads take for granted."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    aligned: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return aligned


def _filled(shape: tuple[int, int], draw: Callable[[tuple[int, int]], np.ndarray], dtype: Any) -> np.ndarray:
    array = _aligned(shape, dtype)
    array[:] = draw(shape)
    return array


def _read_function() -> Any:
    """read(data, nt, sums): every thread adds up its share of `data`, which it reads once."""
    S, NT = tirx.Var("S", "int32"), tirx.Var("NT", "int32")

    @T.prim_func
    def read(
        data: T.Buffer((S, LINE_WORDS), "int32"),
        nt: T.int32,
        sums: T.Buffer((NT, TILE_ROWS * TILE_LANES * LANES), "int32"),
    ):
        T.func_attr({"global_symbol": "read", "tirx.noalias": True})
        with (
            T.attr(T.int32(0), "pragma_parallel_launch_point", T.int32(1)),
            T.attr(T.int32(0), "pragma_parallel_barrier_when_finish", T.int32(1)),
        ):
            for th in T.parallel(nt):
                y = T.alloc_buffer((LINE_WORDS,), "int32")
                for i in T.unroll(LINE_WORDS // LANES):
                    y[lanes(i * LANES)] = splat(T.int32(0))
                for s in T.serial(th * (S // nt), (th + 1) * (S // nt)):
                    for i in T.unroll(LINE_WORDS // LANES):
                        T.evaluate(prefetch(T.address_of(data[s + PREFETCH_LINES, i * LANES])))
                        y[lanes(i * LANES)] = y[lanes(i * LANES)] + data[s, lanes(i * LANES)]
                for i in T.unroll(LINE_WORDS // LANES):
                    sums[th, lanes(i * LANES)] = y[lanes(i * LANES)]

    return read


def _tile_function(row: CpuTarget, is_bytes: bool) -> Any:
    """tile(w, x, nt, steps, sums): every thread adds `steps` outer products of a column of w and a row of x to its tile."""
    dtype, w_dtype = ("int32", "uint32") if is_bytes else ("float32", "float32")
    x_shape, x_dtype = ((OPERANDS, TILE_ROWS * 4), "int8") if is_bytes else ((OPERANDS, TILE_ROWS), "float32")
    zero = T.int32(0) if is_bytes else f32(0)
    NT = tirx.Var("NT", "int32")
    dot = DOTS[row.dot][4]

    @T.prim_func
    def tile(
        w: T.Buffer((OPERANDS, TILE_LANES * LANES), w_dtype),
        x: T.Buffer(x_shape, x_dtype),
        nt: T.int32,
        steps: T.int32,
        sums: T.Buffer((NT, TILE_ROWS * TILE_LANES * LANES), dtype),
    ):
        T.func_attr({"global_symbol": "bytes" if is_bytes else "floats", "tirx.noalias": True})
        with (
            T.attr(T.int32(0), "pragma_parallel_launch_point", T.int32(1)),
            T.attr(T.int32(0), "pragma_parallel_barrier_when_finish", T.int32(1)),
        ):
            for th in T.parallel(nt):
                y = T.alloc_buffer((TILE_ROWS * TILE_LANES * LANES,), dtype)
                for i in T.unroll(TILE_ROWS * TILE_LANES):
                    y[lanes(i * LANES)] = splat(zero)
                for s in T.serial(steps):
                    for r in T.unroll(TILE_ROWS):
                        for t in T.unroll(TILE_LANES):
                            if is_bytes:
                                y[lanes((r * TILE_LANES + t) * LANES)] = dot(
                                    y[lanes((r * TILE_LANES + t) * LANES)],
                                    w[s % OPERANDS, lanes(t * LANES)],
                                    x[s % OPERANDS, lanes(r * 4, 4)],
                                )
                            else:
                                y[lanes((r * TILE_LANES + t) * LANES)] = fma(
                                    w[s % OPERANDS, lanes(t * LANES)],
                                    splat(x[s % OPERANDS, r]),
                                    y[lanes((r * TILE_LANES + t) * LANES)],
                                )
                for i in T.unroll(TILE_ROWS * TILE_LANES):
                    sums[th, lanes(i * LANES)] = y[lanes(i * LANES)]

    return tile
