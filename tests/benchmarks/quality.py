"""`mec bench quality`: what quantisation and kernels change in a model's predictions, on a text that ships with it.

Two references in float32, keys and values included: the model file's own weights, and the weights as they are stored in
the package. Against the first all differences count, against the second only those of arithmetic.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from compiler.build import compile_model
from compiler.models.gguf_file import GgufModel
from compiler.models.hugging_face import HuggingFaceModel
from compiler.models.locate import find_model_file
from compiler.models.model_file import ModelFile
from compiler.models.tensors import PACKED_MATRICES, part_of, tensor_names
from compiler.quantisation import INTEGER_BITS, Quantisation, find_quantisation
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.kv_compression import compress, expand
from tests.benchmarks.machine import BenchmarkError, at_least, at_most, machine
from tests.compiler.running import open_model, run_tokens

TEXT = Path(__file__).with_name("data") / "quality_text.txt"
WINDOW = 2048
DECODED = 64
HEAD_ROWS = 128

INT8_AGREEMENT = 0.99
EXACT_WEIGHTS_KL = 1e-3
"""Of a file whose weights are re-packed as they are; in nats per token."""
ARITHMETIC_KL = 1e-5


@dataclass(slots=True)
class Difference:
    """Sums over the tokens of a text, of predictions against a reference's."""

    tokens: int = 0
    agreeing: int = 0
    divergence: float = 0.0

    def add(self, reference: np.ndarray, logits: np.ndarray) -> None:
        """Both float32 [rows, vocab]."""
        expected, found = _log_probabilities(reference), _log_probabilities(logits)
        self.tokens += len(logits)
        self.agreeing += int((reference.argmax(-1) == logits.argmax(-1)).sum())
        self.divergence += float((np.exp(expected) * (expected - found)).sum())

    @property
    def top_1_agreement(self) -> float:
        """Share of tokens with the same most likely successor."""
        return self.agreeing / self.tokens

    @property
    def kl(self) -> float:
        """Mean Kullback-Leibler divergence from the reference, in nats per token."""
        return self.divergence / self.tokens


def run(
    model: str = "smollm2",
    quantisations: Sequence[str] = ("int8", "int4"),
    threads: int | None = None,
    tokens: int = 1500,
) -> dict[str, Any]:
    """At most `tokens` of the text; metrics of every quantisation.

    Raises:
        BenchmarkError: torch is missing, or the model takes too few tokens.
    """
    if importlib.util.find_spec("torch") is None:
        raise BenchmarkError("the reference needs torch; run: pip install torch")
    path = find_model_file(model)
    file = HuggingFaceModel(path, model) if path.is_dir() else GgufModel(path, model)
    metrics: dict[str, float] = {}
    criteria: list[dict[str, object]] = []
    windows: list[list[int]] = []
    whole: list[np.ndarray] = []
    for name in quantisations:
        dirs = compile_model(model, name)
        package = ModelPackage.open(dirs.package_dir)
        if not windows:
            windows = _windows(package, tokens)
            whole = _reference_logits(file, windows)
            metrics |= {"tokens": sum(map(len, windows)), "reference_perplexity": _perplexity(whole, windows)}
        context = min(WINDOW, package.spec.context)
        runtime = open_model(dirs, threads=threads or os.cpu_count() or 1, sessions=2, context=context)
        logits = [_prompt_logits(runtime, package, window) for window in windows]
        stored = StoredWeights(file, find_quantisation(package.quantisation))
        to_file = _difference(whole, logits)
        moved = _difference_of_moved_kv(runtime, package, windows[0], logits[0])
        to_stored = to_file if stored.exact else _difference(_reference_logits(stored, windows), logits)
        found = {
            "top_1_agreement": to_file.top_1_agreement,
            "kl": to_file.kl,
            "arithmetic_kl": to_stored.kl,
            "perplexity": _perplexity(logits, windows),
            "int8_kv_top_1_agreement": moved.top_1_agreement,
            "int8_kv_kl": moved.kl,
            "identical_rows": _identical_rows(runtime, package, windows[0], logits[0]),
        }
        metrics |= {f"{name}_{metric}": value for metric, value in found.items()}
        criteria += _criteria(name, stored.exact, found)
    metrics = {name: float(f"{value:.6g}") for name, value in metrics.items()}
    return {"bench": "quality", "machine": machine(), "metrics": metrics, "criteria": criteria}


def _criteria(name: str, exact: bool, found: Mapping[str, float]) -> list[dict[str, object]]:
    criteria = [
        at_most(f"{name}_arithmetic_kl", found["arithmetic_kl"], ARITHMETIC_KL),
        at_least(f"{name}_identical_rows", found["identical_rows"], DECODED),
    ]
    if name == "int8":
        criteria.append(at_least(f"{name}_top_1_agreement", found["top_1_agreement"], INT8_AGREEMENT))
    if exact:
        criteria.append(at_most(f"{name}_kl", found["kl"], EXACT_WEIGHTS_KL))
    return criteria


def _windows(package: ModelPackage, tokens: int) -> list[list[int]]:
    """Token ids of the text, cut to what the model takes at once."""
    ids = Tokenizer.from_file(str(package.tokenizer_path)).encode(TEXT.read_text(encoding="utf-8")).ids[:tokens]
    size = min(WINDOW, package.spec.context)
    windows = [ids[start : start + size] for start in range(0, len(ids), size)]
    windows = [window for window in windows if len(window) > DECODED]
    if not windows:
        raise BenchmarkError(f"the model takes {package.spec.context} tokens; the text needs more than {DECODED}")
    return windows


def _prompt_logits(runtime: CompiledModel, package: ModelPackage, tokens: Sequence[int]) -> np.ndarray:
    """Of a prompt in one prefill: float32 [tokens, vocab]."""
    hidden = run_tokens(runtime, tokens, blocks=package.spec.blocks)
    parts = [runtime.head(hidden[start : start + HEAD_ROWS]).copy() for start in range(0, len(tokens), HEAD_ROWS)]
    return np.concatenate(parts)


def _identical_rows(
    runtime: CompiledModel, package: ModelPackage, tokens: Sequence[int], prompt_logits: np.ndarray
) -> int:
    """How many of the last tokens, decoded one by one, have the very logits that the prefill gave them."""
    first, blocks = len(tokens) - DECODED, package.spec.blocks
    run_tokens(runtime, tokens[:first], slot=1, blocks=blocks)
    same = 0
    for position in range(first, len(tokens)):
        hidden = run_tokens(runtime, tokens[position : position + 1], start=position, slot=1, blocks=blocks)
        same += runtime.head(hidden).tobytes() == prompt_logits[position].tobytes()
    return same


def _difference_of_moved_kv(
    runtime: CompiledModel, package: ModelPackage, tokens: Sequence[int], prompt_logits: np.ndarray
) -> Difference:
    """Of the second half of a text, after the KV of the first half has moved as int8, to what it is without a move."""
    first, blocks = len(tokens) // 2, package.spec.blocks
    run_tokens(runtime, tokens[:first], slot=1, blocks=blocks)
    pages = runtime.page_table[1, : -(-first // runtime.page_tokens)].tolist()
    head_dim = runtime.page_bytes // (2 * runtime.kv_heads * runtime.page_tokens)
    for layer in range(blocks):
        moved = []
        for rows, position_last in zip(runtime.read_pages(layer, pages), (True, False), strict=True):
            packed = compress(rows, head_dim, runtime.page_tokens, position_last=position_last)
            moved.append(expand(packed, head_dim, runtime.page_tokens, position_last=position_last))
        runtime.write_pages(layer, pages, *moved)
    hidden = run_tokens(runtime, tokens[first:], start=first, slot=1, blocks=blocks)
    heads = [runtime.head(hidden[start : start + HEAD_ROWS]).copy() for start in range(0, len(hidden), HEAD_ROWS)]
    return _difference([prompt_logits[first:]], [np.concatenate(heads)])


def _reference_logits(weights: Any, windows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """In float32 throughout; `weights` has `spec` and `values`."""
    import torch

    from tests.compiler.torch_reference import TorchReference

    reference = TorchReference(weights, cached=torch.float32)
    return [reference.logits(list(window)) for window in windows]


def _difference(references: Sequence[np.ndarray], logits: Sequence[np.ndarray]) -> Difference:
    found = Difference()
    for reference, ours in zip(references, logits, strict=True):
        for start in range(0, len(ours), HEAD_ROWS):
            found.add(reference[start : start + HEAD_ROWS], ours[start : start + HEAD_ROWS])
    return found


def _perplexity(logits: Sequence[np.ndarray], windows: Sequence[Sequence[int]]) -> float:
    """Of every token but a window's first."""
    surprise, tokens = 0.0, 0
    for rows, window in zip(logits, windows, strict=True):
        for start in range(0, len(window) - 1, HEAD_ROWS):
            targets = np.array(window[start + 1 : start + 1 + HEAD_ROWS])
            chosen = _log_probabilities(rows[start : start + len(targets)])[np.arange(len(targets)), targets]
            surprise -= float(chosen.sum())
            tokens += len(targets)
    return math.exp(surprise / tokens)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """float64 [rows, vocab]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


class StoredWeights:
    """A model file as packing with a quantisation changes its values; of the model's own dimensions, unpadded."""

    def __init__(self, model: ModelFile, quantisation: Quantisation) -> None:
        self.spec = model.spec
        self._model = model
        self._quantisation = quantisation

    @property
    def exact(self) -> bool:
        """Whether packing keeps every weight of the file: integers of no more bits."""
        storages = {name: storage_of(name, self._quantisation) for name in tensor_names(self.spec)}
        return all(
            self._model.stored_bits(name) <= INTEGER_BITS.get(stored, 0) for name, stored in storages.items() if stored
        )

    def values(self, name: str) -> np.ndarray:
        """As `ModelFile.values`."""
        stored = storage_of(name, self._quantisation)
        if stored in INTEGER_BITS:
            return self._model.groups(name, INTEGER_BITS[stored]).values()
        values = self._model.values(name)
        if stored == "f16":
            return values.astype(np.float16).astype(np.float32)
        if stored == "bf16":
            bits = values.view(np.uint32)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        return values


def storage_of(name: str, quantisation: Quantisation) -> str | None:
    """How a tensor of `compiler.models.tensors` is stored; None for one that is not a matrix."""
    part = part_of(name)
    fields = {part: field for parts, field in PACKED_MATRICES.values() for part in parts}
    if part in fields:
        return str(getattr(quantisation, fields[part]))
    return quantisation.text if name in ("embedding", "head") else None
