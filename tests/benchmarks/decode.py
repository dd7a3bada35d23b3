"""`mec bench decode`: tokens per second of the unsplit model in one process, embedding, head and sampling included."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from compiler.build import compile_model
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.sampling import sample_token
from tests.benchmarks.machine import at_least, machine

DECODE_BOUND_TOKENS_PER_S = 150.0
PREFILL_BOUND_TOKENS_PER_S = 500.0
CONTEXTS = (16, 256, 1000)
PROMPTS = (32, 128, 512)
BATCHES = (2, 4, 8)
ROUNDS = 9
TOKENS_PER_ROUND = 24


def run(model: str = "smollm2", quantisation: str = "int4", threads: int | None = None) -> dict[str, Any]:
    """Medians over rounds. `decode_tokens_per_s` is one session at a context of 16 tokens; batches are sessions there."""
    dirs = compile_model(model, quantisation)
    package = ModelPackage.open(dirs.package_dir)
    context = min(2048, package.spec.context)
    sessions = max(BATCHES)
    runtime = CompiledModel(
        package,
        dirs.artefact_dir,
        threads=threads or os.cpu_count() or 1,
        kv_pages=sessions * context // 16,
        max_sessions=sessions,
        max_rows=max(PROMPTS),
        context=context,
    )
    runtime.page_table[:] = np.arange(runtime.page_table.size).reshape(runtime.page_table.shape)
    step = _stepper(runtime, package)

    metrics: dict[str, float] = {}
    for prompt in PROMPTS:
        rows = np.arange(prompt)
        metrics[f"prefill_{prompt}_tokens_per_s"] = _rate(partial(step, rows, np.zeros_like(rows), 1), prompt, 1)
    for length in CONTEXTS:
        one = partial(step, np.array([length]), np.array([0]), 1)
        metrics[f"decode_context_{length}_tokens_per_s"] = _rate(one, 1, TOKENS_PER_ROUND)
    for batch in BATCHES:
        all_of_it = partial(step, np.full(batch, CONTEXTS[0]), np.arange(batch), batch)
        metrics[f"decode_batch_{batch}_tokens_per_s"] = _rate(all_of_it, batch, TOKENS_PER_ROUND)
    metrics["decode_tokens_per_s"] = metrics[f"decode_context_{CONTEXTS[0]}_tokens_per_s"]
    return {
        "bench": "decode",
        "machine": machine(),
        "metrics": metrics,
        "criteria": [
            at_least(name, metrics[name], bound)
            for name, bound in (
                ("decode_tokens_per_s", DECODE_BOUND_TOKENS_PER_S),
                ("prefill_128_tokens_per_s", PREFILL_BOUND_TOKENS_PER_S),
            )
        ],
    }


def _stepper(runtime: CompiledModel, package: ModelPackage) -> Callable[[np.ndarray, np.ndarray, int], None]:
    def step(positions: np.ndarray, slots: np.ndarray, sampled: int) -> None:
        """One batch from tokens to sampled tokens; the last `sampled` rows get logits."""
        hidden = runtime.embed(np.full(len(positions), 28, np.int32))
        hidden = runtime.run_blocks(package.layers, hidden, positions, slots)
        for logits in runtime.head(hidden[-sampled:]):
            sample_token(logits, 0.0, 1.0, 0, 0)

    return step


def _rate(step: Callable[[], None], tokens: int, repeat: int) -> float:
    step()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeat):
            step()
        seconds.append((time.perf_counter() - start) / repeat)
    return round(tokens / statistics.median(seconds), 1)


def main() -> int:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decode", description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--quantisation", default="int4")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    result = run(args.model, args.quantisation, args.threads)
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("".join(f"{name:32} {value:10.1f}\n" for name, value in result["metrics"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
