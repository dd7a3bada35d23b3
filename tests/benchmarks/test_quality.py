"""The measures of `mec bench quality` on numbers that can be worked out by hand, and a whole run on a tiny model."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from compiler.build import CompiledModel as CompiledDirs
from compiler.quantisation import find_quantisation
from tests.benchmarks import quality
from tests.benchmarks.random_model import Shape, write_random_model


def logits_of(*probabilities: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(probabilities)).astype(np.float32)


def test_a_prediction_does_not_differ_from_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    same = quality.Difference()
    same.add(rows, rows + 3)  # a constant changes no probability
    assert same.kl == pytest.approx(0, abs=1e-6)
    assert same.top_1_agreement == 1


def test_divergence_and_agreement_are_means_over_tokens() -> None:
    found = quality.Difference()
    found.add(logits_of((0.75, 0.25)), logits_of((0.5, 0.5)))
    found.add(logits_of((0.75, 0.25)), logits_of((0.25, 0.75)))
    first, second = 0.75 * log(1.5) + 0.25 * log(0.5), 0.75 * log(3) + 0.25 * log(1 / 3)
    assert found.kl == pytest.approx((first + second) / 2, rel=1e-5)
    assert found.top_1_agreement == 0.5


def test_perplexity_of_a_guess_among_all_tokens_is_their_number() -> None:
    assert quality._perplexity([np.zeros((6, 50), np.float32)], [[1, 2, 3, 4, 5, 6]]) == pytest.approx(50)


def test_matrices_are_stored_as_the_quantisation_says_and_vectors_as_they_are() -> None:
    scheme = find_quantisation("int4")
    names = ("blocks.0.query", "blocks.3.down", "embedding", "blocks.0.ffn_norm")
    assert [quality.storage_of(name, scheme) for name in names] == ["int4", "int4", "int8", None]


@pytest.mark.slow
def test_the_text_is_as_long_as_it_should_be(compiled_model_dirs: CompiledDirs) -> None:
    tokenizer = Tokenizer.from_file(str(compiled_model_dirs.package_dir / "tokenizer.json"))
    assert 1200 <= len(tokenizer.encode(quality.TEXT.read_text(encoding="utf-8")).ids) <= 1600


@pytest.mark.slow
def test_a_tiny_model_is_compared_with_both_references(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = tmp_path / "tiny.gguf"
    write_random_model(model, Shape(2, 64, 2, 1, 32, 96, 320, 256, 10000.0))
    result = quality.run(str(model), ["int8", "f16"], threads=1, tokens=128)
    metrics = result["metrics"]
    assert metrics["tokens"] == 128
    assert metrics["int8_kl"] == metrics["int8_arithmetic_kl"]  # the file's integers are kept
    assert 0 < metrics["f16_int8_kv_kl"] < 0.1  # KV that moved as int8 is not what it was, and nearly
    assert metrics["int8_identical_rows"] == metrics["f16_identical_rows"] == quality.DECODED
    assert metrics["int8_perplexity"] == pytest.approx(metrics["reference_perplexity"], rel=1e-3)
    assert [criterion["name"] for criterion in result["criteria"]] == [
        *("int8_arithmetic_kl", "int8_identical_rows", "int8_top_1_agreement", "int8_kl"),
        *("f16_arithmetic_kl", "f16_identical_rows"),
    ]
