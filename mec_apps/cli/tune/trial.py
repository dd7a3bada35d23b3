"""Runs a candidate against what is known to be best: the kernel that multiplies rows alone, or a whole artefact.

Both run in turns, a pair at a time with the order swapped, so that what the machine does meanwhile falls on both.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi

from compiler.kernels import activations, linear, text
from compiler.kernels.expansion import quick_expansion
from compiler.linking import link_for
from compiler.models.spec import ArchitectureDims
from compiler.passes.pipeline import adapt
from compiler.quantisation import Quantisation
from compiler.targets.row import CpuTarget
from mec_apps.cli.tune.candidates import Comparison, compare
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel

Cases = Mapping[str, Callable[[], object]]

STRIP_BYTES = 24 << 20
"""Weights that the kernel of rows reads: more than the second cache of most cores, as a model's are."""
_STRIP_ROWS = {"decode": 1, "batch": 8, "prompt": 64}
_PAIRS, _LAST_PAIRS = 9, 25
_PROMPT, _CONTEXT, _SESSIONS = 128, 256, 8


class RowsTrial:
    """The kernel that multiplies rows with packed weights, as the gate and up projections of a model store them."""

    def __init__(self, dims: ArchitectureDims, quantisation: Quantisation, threads: int) -> None:
        per_output = dims.hidden * {"int4": 0.5, "int8": 1, "f16": 2, "bf16": 2, "f32": 4}[quantisation.gate_up]
        self._dims = replace(dims, vocab=int(STRIP_BYTES / per_output) // 32 * 32)
        self._stored = quantisation.gate_up
        self._acts = (activations.plain if quantisation.is_float else activations.quantised)(dims)
        self._threads = threads
        self._memory: dict[str, np.ndarray] = {}
        os.environ["TVM_NUM_THREADS"] = str(threads)
        tvm_ffi.get_global_func("runtime.config_threadpool")(1, threads)

    def cases(self, row: CpuTarget) -> Cases:
        """Calls of the kernel compiled for `row`. Raises BuildError."""
        weights = linear.weight_format(self._stored, row)
        with quick_expansion():
            module = tvm.IRModule({"head": text.head_function(self._dims, weights, self._acts)})
        compiled = tvm.compile(adapt(module, row), target=tvm.target.Target(row.llvm())).jit(
            fcompile=link_for(row.arch)
        )
        kernel = compiled["head"]

        def call(rows: int) -> Callable[[], object]:
            arguments = [tvm_ffi.from_dlpack(array) for array in self._arguments(rows, weights)]
            return lambda: kernel(arguments[0], self._threads, *arguments[1:])

        return {name: call(rows) for name, rows in _STRIP_ROWS.items()}

    def _arguments(self, rows: int, weights: linear.WeightFormat) -> list[np.ndarray]:
        columns, outputs = self._dims.hidden, self._dims.vocab
        return [
            self._array(f"hidden {rows}", (rows, columns), np.float32),
            self._array("norm", (1, columns), np.float32),
            self._array("q", (1, *weights.q_shape(outputs, columns)), weights.q_dtype),
            self._array("s", (1, *weights.s_shape(outputs, columns)), np.float16),
            self._array(f"values {rows}", (rows, self._acts.values_stride(columns)), self._acts.values_dtype),
            self._array(f"scales {rows}", (rows, columns // 32 * 2), np.float32),
            self._array(f"outputs {rows}", (rows, outputs), np.float32),
        ]

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Ones at a multiple of 64 bytes, the same for every candidate: what numbers say changes no time."""
        if name not in self._memory:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = np.zeros(size + 64, np.uint8)
            start = -memory.ctypes.data % 64
            self._memory[name] = memory[start : start + size].view(dtype).reshape(shape)
            self._memory[name][...] = 1
        return self._memory[name]


class WholeTrial:
    """A whole artefact over its model: a decode step, a step of several sessions, and a prompt."""

    def __init__(self, package_dir: Path, threads: int) -> None:
        self._package = ModelPackage.open(package_dir)
        self._context = min(_CONTEXT, self._package.spec.context)
        self._threads = threads

    def cases(self, artefact_dir: Path) -> Cases:
        """Steps of a freshly opened runtime."""
        pages = -(-self._context // 16)
        runtime = CompiledModel(
            self._package,
            artefact_dir,
            threads=self._threads,
            kv_pages=_SESSIONS * pages,
            max_sessions=_SESSIONS,
            max_rows=_PROMPT,
            context=self._context,
        )
        runtime.page_table[:] = np.arange(_SESSIONS * pages).reshape(_SESSIONS, pages)
        prompt = np.arange(min(_PROMPT, self._context))

        def step(positions: np.ndarray, slots: np.ndarray) -> Callable[[], object]:
            hidden = np.ones((len(positions), self._package.dims.hidden), np.float32)

            def run() -> None:
                rows = runtime.run_blocks(self._package.layers, hidden, positions, slots)
                runtime.head(rows[-1:])

            return run

        last = self._context - 1
        return {
            "decode": step(np.array([last]), np.zeros(1, np.int32)),
            "batch": step(np.full(_SESSIONS, last), np.arange(_SESSIONS)),
            "prompt": step(prompt, np.zeros(len(prompt), np.int32)),
        }


def run_pairs(known: Cases, new: Cases, *, is_last: bool = False) -> Comparison:
    """Both in turns; more often for what will be said of the winner."""
    pairs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for call in (*known.values(), *new.values()):
        call()
    for turn in range(_LAST_PAIRS if is_last else _PAIRS):
        for name in known:
            if turn % 2:
                late, early = _seconds(new[name]), _seconds(known[name])
                pairs[name].append((early, late))
            else:
                pairs[name].append((_seconds(known[name]), _seconds(new[name])))
    return compare(pairs)


def _seconds(call: Callable[[], object]) -> float:
    """Of the faster of two calls: the first finds what the other candidate has left in the caches."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
