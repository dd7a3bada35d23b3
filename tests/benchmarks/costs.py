"""What a model costs before its first token: compiling it, opening it, and the memory of a node that serves it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from compiler.build import compile_model
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node import agent  # what an edge node loads  # noqa: F401
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.compute import MAX_BATCH_ROWS
from mec_platform.domain.layers import LayerRange
from tests.benchmarks.machine import run_apart

START_ROUNDS = 3
_KV_TOKENS = 512


def measure_costs(model: str, quantisation: str, threads: int) -> dict[str, float]:
    """Metrics, each measured in a process of its own.

    `cold_compile_s`: package and artefact into an empty cache, the compiler's imports included. `second_start_s`: both
    found in the cache, opened, and the runtime loaded. `node_overhead_mb`: see `start`.
    """
    starts = [run_apart("costs", "start", model, quantisation, threads) for _ in range(START_ROUNDS)]
    return {
        "cold_compile_s": round(run_apart("costs", "compile", model, quantisation), 2),
        "second_start_s": round(min(start["start_s"] for start in starts), 3),
        "first_token_s": round(min(start["first_token_s"] for start in starts), 3),
        "node_overhead_mb": round(min(start["overhead_bytes"] for start in starts) / 1e6, 1),
    }


def cold_compile(model: str, quantisation: str) -> float:
    """Seconds."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        compile_model(model, quantisation, cache=Path(cache))
        return time.perf_counter() - start


def start(model: str, quantisation: str, threads: int) -> dict[str, float]:
    """Opens a compiled model as an edge node does, and runs a prompt and a token through half of its blocks.

    `overhead_bytes` is all resident memory of this process, shared libraries included, but the pages of the weights
    file and the KV pages that the tokens took.
    """
    begin = time.perf_counter()
    dirs = compile_model(model, quantisation)
    package = ModelPackage.open(dirs.package_dir)
    context = min(2048, package.spec.context)
    runtime = CompiledModel(
        package,
        dirs.artefact_dir,
        threads=threads,
        kv_pages=1024,
        max_sessions=32,
        max_rows=MAX_BATCH_ROWS,
        context=context,
    )
    opened = time.perf_counter()
    runtime.page_table[0] = np.arange(runtime.page_table.shape[1])
    layers = LayerRange(0, -(-package.spec.blocks // 2))

    def run(positions: np.ndarray) -> None:
        hidden = runtime.embed(np.zeros(len(positions), np.int32))
        hidden = runtime.run_blocks(layers, hidden, positions, np.zeros_like(positions))
        runtime.head(hidden[-1:])

    run(np.arange(1))
    first = time.perf_counter()
    tokens = min(_KV_TOKENS, context - 1)
    run(np.arange(tokens))
    run(np.arange(tokens, tokens + 1))
    pages = -(-(tokens + 1) // runtime.page_tokens)
    kv_bytes = pages * runtime.page_tokens * package.shape.kv_bytes_per_token_per_block * len(layers)
    return {
        "start_s": opened - begin,
        "first_token_s": first - begin,
        "overhead_bytes": _resident_bytes(without="weights.bin") - kv_bytes,
    }


def _resident_bytes(without: str) -> int:
    """Resident memory of this process, except in mappings of files of that name."""
    total, counted = 0, True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split(maxsplit=5)
        if not field.endswith(":"):
            counted = not line.endswith(f"/{without}")
        elif field == "Rss:" and counted:
            total += int(rest[0]) << 10
    return total


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        sys.stdout.write(json.dumps(cold_compile(*sys.argv[2:])))
    else:
        sys.stdout.write(json.dumps(start(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
