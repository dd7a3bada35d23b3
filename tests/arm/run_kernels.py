"""Runs kernels on the machine that it is started on: every folder named holds lib.so and operands.npz; results go beside."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mec_apps.split_inference.node.tvm_runtime import load_runtime


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run(folder: Path) -> None:
    """Writes the sums of all rows at once, and of each alone."""
    ffi = load_runtime()
    multiply = ffi.load_module(str(folder / "lib.so"))["multiply"]
    operands = np.load(folder / "operands.npz")
    w, s = aligned(operands["w"]), aligned(operands["s"])

    def sums(rows: slice) -> np.ndarray:
        values, scales = aligned(operands["values"][rows]), aligned(operands["scales"][rows])
        out = aligned(np.zeros((len(values), w.shape[1] * 32), np.float32))
        multiply(*map(ffi.from_dlpack, (w, s, values, scales, out)))
        return out

    count = len(operands["values"])
    alone = np.concatenate([sums(slice(row, row + 1)) for row in range(count)])
    np.savez(folder / "results.npz", together=sums(slice(None)), alone=alone)


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        run(folder)


if __name__ == "__main__":
    main()
