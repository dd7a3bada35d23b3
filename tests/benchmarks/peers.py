"""Other programs on the same machine: llama.cpp where its `llama-bench` is named, torch's linear layers where installed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mec_apps.split_inference.model_package import ModelPackage
from tests.benchmarks.machine import BenchmarkError, run_apart, run_tool
from tests.benchmarks.rates import Rates

PROMPTS = (128, 512)
GENERATED = 64
LINEAR_ROWS = (1, 8, 128)
_KIND = re.compile(r"\b(I?Q\d\w*|B?F\d+)\b")
"""In what llama-bench calls a model: "llama 1B (guessed) Q4_0", "qwen2 1B Q4_K - Medium"."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp's own benchmark, and model files in its formats: among them one of four bits."""

    program: Path
    models: tuple[Path, ...]

    def measure(self, rates: Rates, threads: int) -> None:
        """Adds a round of every file to `rates`, as `llama_cpp_<kind of weights>_<case>`.

        Raises:
            BenchmarkError: llama-bench failed, or printed something else.
        """
        shape = ["-p", ",".join(map(str, PROMPTS)), "-n", str(GENERATED), "-t", str(threads)]
        for model in self.models:
            printed = run_tool([str(self.program), "-m", str(model.resolve()), *shape, "-r", "2", "-o", "json"])
            for case, samples in parse_llama_bench(printed).items():
                rates.add(f"llama_cpp_{case}", samples)


def parse_llama_bench(printed: str) -> dict[str, list[float]]:
    """Tokens per second of every sample, by `<kind of weights>_prefill_<tokens>` or `<kind of weights>_decode`.

    Raises:
        BenchmarkError: not what `llama-bench -o json` prints.
    """
    try:
        found = {}
        for test in json.loads(printed):
            kind = _KIND.findall(test["model_type"])[-1].lower()
            case = "decode" if test["n_gen"] else f"prefill_{test['n_prompt']}"
            found[f"{kind}_{case}"] = [float(sample) for sample in test["samples_ts"]]
        return found
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchmarkError(f"llama-bench printed something unexpected ({error!r}); is it llama.cpp's?") from error


def fastest_llama_cpp(rates: Rates, case: str) -> str | None:
    """The kind of weights that llama.cpp did `case` fastest with, as the name of its case; decoding with four bits."""
    starts = ("llama_cpp_q4", "llama_cpp_iq4") if case == "decode" else ("llama_cpp_",)
    return max(
        (n for n in rates.names() if n.startswith(starts) and n.endswith(f"_{case}")), key=rates.best, default=None
    )


def measure_torch(rates: Rates, package: ModelPackage, threads: int) -> None:
    """Adds a round of the linear layers of all blocks in torch, float32 and bfloat16; nothing where torch is missing."""
    if importlib.util.find_spec("torch") is None:
        return
    spec = package.spec
    attention = spec.heads * spec.head_dim
    shapes = [
        (attention + 2 * spec.kv_heads * spec.head_dim, spec.hidden),
        (spec.hidden, attention),
        (2 * spec.ffn, spec.hidden),
        (spec.hidden, spec.ffn),
    ]
    for case, samples in run_apart("peers", threads, spec.blocks, json.dumps(shapes)).items():
        rates.add(f"torch_{case}", samples)


def torch_linears(
    threads: int, blocks: int, shapes: Sequence[tuple[int, int]], seconds: float = 0.3
) -> dict[str, list[float]]:
    """Tokens per second through matrices of `shapes` (rows, columns), each in `blocks` copies, so that caches see them all."""
    import torch

    torch.set_num_threads(threads)
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        weights = [[torch.full(shape, 0.01, dtype=dtype) for shape in shapes] for _ in range(blocks)]
        for rows in LINEAR_ROWS:
            inputs = [torch.full((rows, columns), 0.5, dtype=dtype) for _, columns in shapes]
            samples: list[float] = []
            end = time.perf_counter() + seconds
            with torch.no_grad():
                while not samples or time.perf_counter() < end:
                    start = time.perf_counter()
                    for block in weights:
                        for weight, x in zip(block, inputs, strict=True):
                            torch.nn.functional.linear(x, weight)
                    samples.append(rows / (time.perf_counter() - start))
            found[f"{name}_linears_rows_{rows}"] = samples
    return found


if __name__ == "__main__":
    result = torch_linears(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
    sys.stdout.write(json.dumps(result))
