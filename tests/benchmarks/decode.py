"""`mec bench decode`: tokens per second of the unsplit model in one process, embedding, head and sampling included.

Rounds interleave ours, the peers that are there, and the machine's limits; see `rates`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from compiler.build import CompiledModel as CompiledDirs
from compiler.build import compile_model
from compiler.limits import LimitKernels, Limits
from mec_apps.cli.profile.work import Work, block_work, head_work
from mec_apps.split_inference.frames import MAX_ROWS
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.sampling import sample_token
from tests.benchmarks.costs import measure_costs
from tests.benchmarks.machine import at_least, at_most, has_amx, machine
from tests.benchmarks.peers import LINEAR_ROWS, LlamaCpp, fastest_llama_cpp, measure_torch
from tests.benchmarks.rates import Rates
from tests.compiler.running import open_model

CONTEXTS = (16, 256, 1000, 2000)
PROMPTS = (128, 512, 2000)
OFFSET = 1000
BATCHES = (2, 4, 8, 16)
ROUNDS, TORCH_ROUNDS = 5, 2
DECODE_CALLS, BATCH_CALLS = 24, 8

DECODE_OVER_LLAMA_CPP = 3.0
PREFILL_OVER_LLAMA_CPP = {False: 2.0, True: 4.0}
"""Without and with AMX, which llama.cpp is built without."""
LONG_PREFILL_SHARE = 0.6
LONG_CONTEXT_SHARE = 0.65
BATCH_8_GAIN = {False: 2.5, True: 4.0}
"""Of eight sessions over one: where weights come from the cache, and where they come from memory (True)."""
FROM_MEMORY_BYTES = 500_000_000
"""A step that reads more than this finds little of it in any cache."""
LOSS_DEVIATION = 0.25
COLD_COMPILE_S = 20.0
SECOND_START_S = 0.3
NODE_OVERHEAD_MB = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    """What one sample runs: `calls` calls of `step`, each of which computes `tokens` tokens."""

    name: str
    tokens: int
    calls: int
    step: Callable[[], object]


class Ours:
    """The compiled model with sessions whose KV pages have been written: unwritten ones would all be one cached page."""

    def __init__(self, package: ModelPackage, dirs: CompiledDirs, threads: int) -> None:
        self.package = package
        self._context = min(2048, package.spec.context)
        self._runtime = open_model(dirs, threads=threads, sessions=max(BATCHES), context=self._context)
        self._tokens = np.random.default_rng(0).integers(0, package.spec.vocab, self._context)
        self._prefill(0, self._context)
        for slot in range(1, max(BATCHES)):
            self._blocks(np.arange(CONTEXTS[0] + 1), np.full(CONTEXTS[0] + 1, slot))

    def cases(self) -> Iterator[Case]:
        """Those that the model's context has room for."""
        for prompt in PROMPTS:
            if prompt <= self._context:
                calls = max(1, 256 // prompt)
                yield Case(f"prefill_{prompt}", prompt, calls, partial(self._prefill, 0, prompt))
        if OFFSET + PROMPTS[0] <= self._context:
            step = partial(self._prefill, OFFSET, OFFSET + PROMPTS[0])
            yield Case(f"prefill_{PROMPTS[0]}_at_{OFFSET}", PROMPTS[0], 2, step)
        for length in CONTEXTS:
            if length < self._context:
                step = partial(self._step, np.array([length]), np.array([0]), 1)
                yield Case(f"decode_context_{length}", 1, DECODE_CALLS, step)
        for batch in BATCHES:
            step = partial(self._step, np.full(batch, CONTEXTS[0]), np.arange(batch), batch)
            yield Case(f"decode_batch_{batch}", batch, BATCH_CALLS, step)
        for rows in LINEAR_ROWS:
            step = partial(self._blocks, np.arange(rows), np.zeros(rows, np.int32))
            yield Case(f"blocks_rows_{rows}", rows, max(1, DECODE_CALLS // rows), step)

    def _prefill(self, start: int, stop: int) -> None:
        """Tokens [start, stop) of session 0, in the chunks that a gateway sends; the last row is sampled."""
        for first in range(start, stop, MAX_ROWS):
            last = min(first + MAX_ROWS, stop)
            self._step(np.arange(first, last), np.zeros(last - first, np.int32), int(last == stop))

    def _step(self, positions: np.ndarray, slots: np.ndarray, sampled: int) -> None:
        """One batch from tokens to sampled tokens; the last `sampled` rows get logits."""
        hidden = self._blocks(positions, slots)
        if sampled:
            for logits in self._runtime.head(hidden[-sampled:]):
                sample_token(logits, 0.0, 1.0, 0, 0)

    def _blocks(self, positions: np.ndarray, slots: np.ndarray) -> np.ndarray:
        hidden = self._runtime.embed(self._tokens[positions])
        return self._runtime.run_blocks(self.package.layers, hidden, positions, slots)


def run(
    model: str = "smollm2",
    quantisation: str = "int4",
    threads: int | None = None,
    llama_cpp: LlamaCpp | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Metrics are medians over rounds, `_best_` ones the best sample, from which ratios and shares are made.

    `decode` is one session at a context of 16 tokens; batches are sessions there. `limit_steadiness` is the slowest over
    the fastest moment of the machine: where it is far below 1, others used it, and more rounds are needed.
    """
    count = threads or os.cpu_count() or 1
    dirs = compile_model(model, quantisation)
    package = ModelPackage.open(dirs.package_dir)
    costs = measure_costs(model, quantisation, count)
    ours = Ours(package, dirs, count)
    step_bytes = package.shape.block_bytes * package.spec.blocks + package.shape.head_bytes
    kernels = LimitKernels(count, step_bytes)
    measured, rates = [kernels.measure()], Rates()
    for turn in range(rounds):
        for case in ours.cases():
            rates.time(case.name, case.tokens, case.calls, case.step)
        measured.append(kernels.measure())
        if turn < TORCH_ROUNDS:
            measure_torch(rates, package, count)
        if llama_cpp is not None:
            llama_cpp.measure(rates, count)
    limits = reduce(Limits.best, measured)
    metrics = {
        **rates.metrics(),
        "decode_tokens_per_s": rates.metrics()[f"decode_context_{CONTEXTS[0]}_tokens_per_s"],
        "limit_read_gb_per_s": limits.read_bytes_per_s / 1e9,
        "limit_float32_gflop_per_s": limits.float_ops_per_s / 1e9,
        "limit_int8_gop_per_s": limits.byte_ops_per_s / 1e9,
        "limit_steadiness": min(each.byte_ops_per_s for each in measured) / limits.byte_ops_per_s,
        **_ratios(rates),
        **_limit_shares(rates, package, limits),
        **costs,
    }
    metrics = {name: round(value, 3) for name, value in metrics.items()}
    return {"bench": "decode", "machine": machine(), "metrics": metrics, "criteria": _criteria(metrics, step_bytes)}


def _ratios(rates: Rates) -> dict[str, float]:
    """Best over best, where both were measured."""
    decode = f"decode_context_{CONTEXTS[0]}"
    pairs = {
        "decode_over_llama_cpp": (decode, fastest_llama_cpp(rates, "decode")),
        "prefill_128_over_llama_cpp": ("prefill_128", fastest_llama_cpp(rates, "prefill_128")),
        "prefill_512_over_llama_cpp": ("prefill_512", fastest_llama_cpp(rates, "prefill_512")),
        "prefill_2000_over_128": ("prefill_2000", "prefill_128"),
        "context_2000_over_16": ("decode_context_2000", decode),
        "batch_8_over_1": ("decode_batch_8", decode),
    }
    for rows in LINEAR_ROWS:
        for dtype in ("float32", "bfloat16"):
            peer = f"torch_{dtype}_linears_rows_{rows}"
            pairs[f"blocks_rows_{rows}_over_torch_{dtype}_linears"] = (f"blocks_rows_{rows}", peer)
    names = rates.names()
    ratios = {name: rates.best(a) / rates.best(b) for name, (a, b) in pairs.items() if a in names and b in names}
    if "decode_context_2000" in names:
        first, second, third = (1 / rates.best(f"decode_context_{length}") for length in (16, 1000, 2000))
        ratios["context_loss_deviation"] = abs((third - second) / 1000 / ((second - first) / 984) - 1)
    return ratios


def _limit_shares(rates: Rates, package: ModelPackage, limits: Limits) -> dict[str, float]:
    """Of the time that the machine's limits leave at least: one decode step, and prompts' blocks."""
    shares = {}
    for name, rows, context in (("decode_context_16", 1, 16), ("prefill_128", 128, 0)):
        work = sum(block_work(package, rows, context).values(), Work()).times(package.spec.blocks)
        least, _ = (work + head_work(package, 1)).least_seconds(limits)
        shares[f"{name}_limit_share"] = least * rates.best(name) / rows
    return shares


def _criteria(metrics: dict[str, float], step_bytes: int) -> list[dict[str, object]]:
    """Of everything that was measured."""
    prefill = PREFILL_OVER_LLAMA_CPP[has_amx()]
    bounds = {
        "decode_over_llama_cpp": (at_least, DECODE_OVER_LLAMA_CPP),
        "prefill_128_over_llama_cpp": (at_least, prefill),
        "prefill_512_over_llama_cpp": (at_least, prefill),
        "prefill_2000_over_128": (at_least, LONG_PREFILL_SHARE),
        "context_2000_over_16": (at_least, LONG_CONTEXT_SHARE),
        "context_loss_deviation": (at_most, LOSS_DEVIATION),
        "batch_8_over_1": (at_least, BATCH_8_GAIN[step_bytes > FROM_MEMORY_BYTES]),
        "cold_compile_s": (at_most, COLD_COMPILE_S),
        "second_start_s": (at_most, SECOND_START_S),
        "node_overhead_mb": (at_most, NODE_OVERHEAD_MB),
    }
    return [judge(name, metrics[name], bound) for name, (judge, bound) in bounds.items() if name in metrics]


def main() -> int:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decode", description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--quantisation", default="int4")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    sys.stdout.write(json.dumps(run(args.model, args.quantisation, args.threads)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
