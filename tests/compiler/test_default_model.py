"""The default model, compiled: its numbers against torch, and its text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer

from compiler.build import CompiledModel as CompiledDirs
from compiler.build import compile_model
from compiler.models.gguf_file import GgufModel
from compiler.models.locate import find_model_file
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.sampling import sample_token
from tests.compiler.running import open_model, run_tokens
from tests.compiler.torch_reference import TorchReference

pytestmark = pytest.mark.slow

PROMPT = (
    "<|im_start|>user\nWhat is the capital of France? Name two rivers and two mountains of the country, and say in "
    "1,234 words or fewer why people visit it.<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def reference_logits(compiled_model_dirs: CompiledDirs) -> tuple[list[int], np.ndarray]:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    tokens = Tokenizer.from_file(str(package.tokenizer_path)).encode(PROMPT).ids
    return tokens, TorchReference(GgufModel(find_model_file("smollm2"), "smollm2")).logits(tokens)


@pytest.mark.parametrize(("quantisation", "bound"), [("f32", 1e-3), ("int8", 0.01), ("int4", 0.01)])
def test_logits_and_top_token_agree_with_torch(
    reference_logits: tuple[list[int], np.ndarray],
    record_property: Callable[[str, object], None],
    quantisation: str,
    bound: float,
) -> None:
    tokens, reference = reference_logits
    model = open_model(compile_model("smollm2", quantisation))
    logits = model.head(run_tokens(model, tokens, blocks=30))
    error = float(np.sqrt(((logits - reference) ** 2).mean()) / reference.std())
    agreement = float((logits.argmax(-1) == reference.argmax(-1)).mean())
    record_property("relative_rms_error", error)
    record_property("top_1_agreement", agreement)
    assert error < bound
    assert agreement >= 0.9


def test_answers_a_question_in_english(compiled_model_dirs: CompiledDirs) -> None:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    tokenizer = Tokenizer.from_file(str(package.tokenizer_path))
    prompt = tokenizer.encode("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n").ids
    model = open_model(compiled_model_dirs)
    hidden, answer = run_tokens(model, prompt, blocks=30), []
    for position in range(len(prompt), len(prompt) + 40):
        token = sample_token(model.head(hidden[-1:])[0], 0, 1, 0, position)
        if token == package.spec.eos_id:
            break
        answer.append(token)
        hidden = run_tokens(model, [token], start=position, blocks=30)
    assert "Paris" in tokenizer.decode(answer)


def test_generated_rows_are_replayed_bit_for_bit_after_another_cut(compiled_model_dirs: CompiledDirs) -> None:
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 49152, 90)]
    model = open_model(compiled_model_dirs)
    run_tokens(model, tokens[:60], blocks=30)
    generated = [run_tokens(model, [token], start=60 + i, blocks=30) for i, token in enumerate(tokens[60:])]
    replayed = run_tokens(model, tokens, slot=1, cuts=(7, 19), blocks=30)
    assert np.concatenate(generated).tobytes() == replayed[60:].tobytes()
    head = model.head(replayed[-5:]).copy()
    assert model.head(replayed[-1:]).tobytes() == head[-1:].tobytes()
