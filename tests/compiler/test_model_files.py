"""GGUF files: what is read of them, and the one line that says why a file cannot be used."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.build import compile_model
from compiler.errors import ModelFileError
from compiler.models.gguf_file import GgufModel
from compiler.models.locate import find_model_file
from tests.compiler.conftest import BLOCKS, CONTEXT, FFN, HIDDEN, VOCAB, write_tiny_model
from tests.compiler.damage import reason_of_refusal


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        GgufModel(path, "model")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reads_the_facts(tiny_model_file: Path) -> None:
    spec = GgufModel(tiny_model_file, "tiny").spec
    assert (spec.blocks, spec.hidden, spec.ffn, spec.vocab, spec.context) == (BLOCKS, 96, FFN, VOCAB, CONTEXT)
    assert (spec.tied_embedding, spec.qkv_bias, spec.qk_norm) == (False, False, False)


def test_query_rows_come_in_half_split_order(tiny_model_file: Path) -> None:
    model = GgufModel(tiny_model_file, "tiny")
    assert model.values("blocks.0.output").shape == (96, 96)
    np.testing.assert_allclose(model.groups("blocks.0.query", 4).values(), model.values("blocks.0.query"), atol=1e-6)


def test_biases_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    extra = {
        f"blk.{block}.attn_{part}.bias": np.arange(size)
        for block in range(BLOCKS)
        for part, size in (("q", HIDDEN), ("k", 32), ("v", 32))
    }
    model = GgufModel(write_tiny_model(tmp_path / "m.gguf", extra=extra), "m")
    assert model.spec.qkv_bias
    assert list(model.values("blocks.1.key_bias")) == [*range(0, 32, 2), *range(1, 32, 2)]
    assert list(model.values("blocks.1.query_bias")[32:48]) == list(range(32, 64, 2))
    assert list(model.values("blocks.1.value_bias")) == list(range(32))


def test_a_window_bounds_the_context(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", facts={"llama.attention.sliding_window": 100})
    assert GgufModel(path, "m").spec.context == 100


@pytest.mark.parametrize(
    "facts",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
)
def test_positions_may_be_interpolated(tiny_model_file: Path, tmp_path: Path, facts: dict[str, object]) -> None:
    plain = GgufModel(tiny_model_file, "m").spec.rotary.rates
    scaled = GgufModel(write_tiny_model(tmp_path / "m.gguf", facts=facts), "m").spec.rotary.rates
    np.testing.assert_allclose(np.array(scaled) * 4, plain)


def test_a_file_that_scales_by_nothing_is_not_scaled(tiny_model_file: Path, tmp_path: Path) -> None:
    facts = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}
    path = write_tiny_model(tmp_path / "m.gguf", facts=facts)
    assert GgufModel(path, "m").spec.rotary == GgufModel(tiny_model_file, "m").spec.rotary


def test_yarn_multiplies_its_magnitude_with_the_stated_factor(tmp_path: Path) -> None:
    facts = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 256,
        "llama.rope.scaling.attn_factor": 0.5,
    }
    spec = GgufModel(write_tiny_model(tmp_path / "m.gguf", facts=facts), "m").spec
    assert spec.rotary.magnitude == pytest.approx(0.5 * (1 + 0.1 * math.log(4)))
    assert spec.context == 4 * 256


def test_pairs_may_have_factors_of_their_own(tiny_model_file: Path, tmp_path: Path) -> None:
    factors = np.linspace(1, 8, 16)
    path = write_tiny_model(tmp_path / "m.gguf", extra={"rope_freqs.weight": factors})
    plain = GgufModel(tiny_model_file, "m").spec.rotary.rates
    np.testing.assert_allclose(np.array(GgufModel(path, "m").spec.rotary.rates) * factors, plain, rtol=1e-6)


def test_missing_file(tmp_path: Path) -> None:
    assert "no model file" in refusal(tmp_path / "none.gguf")
    with pytest.raises(
        ModelFileError, match=r"give the path of a \.gguf file or of a Hugging Face folder, or 'smollm2'"
    ):
        find_model_file("does-not-exist")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"this is no model at all, but long enough to be read as one" * 10])
def test_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert "not a readable GGUF file" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_truncated_file(tiny_model_file: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.gguf"
    whole = tiny_model_file.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a readable GGUF file" in refusal(path)


def test_another_architecture(tmp_path: Path) -> None:
    message = refusal(write_tiny_model(tmp_path / "m.gguf", architecture="gpt2"))
    assert "architecture 'gpt2'; supported are llama, qwen2, qwen3" in message


def test_missing_tensor(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", without="blk.2.ffn_up.weight")
    assert "lacks the tensor blk.2.ffn_up.weight" in refusal(path)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_an_architecture_without_its_own_tensors(tmp_path: Path, architecture: str) -> None:
    missing = {"qwen2": "blk.0.attn_q.bias", "qwen3": "blk.0.attn_q_norm.weight"}[architecture]
    assert f"lacks the tensor {missing}" in refusal(write_tiny_model(tmp_path / "m.gguf", architecture=architecture))


@pytest.mark.parametrize("name", ["blk.0.attn_output.bias", "blk.1.ffn_gate_inp.weight", "position_embd.weight"])
def test_a_tensor_that_would_have_changed_the_result(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", extra={name: np.ones(HIDDEN)})
    assert f"has the tensor '{name}', which is not supported" in refusal(path)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.dimension_count": 16}, "rotates a part of each head only"),
        ({"llama.attention.value_length": 16}, "keys and values differ in width"),
        ({"llama.rope.scaling.type": "longrope"}, "rotary embedding by 'longrope'"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_log_multiplier": 0.1}, "variant of YaRN"),
        ({"llama.rope.scaling.factor": -1.0}, "its rotary embedding cannot be"),
        ({"llama.attention.key_length": 31}, "heads are 31 wide"),
        ({"llama.attention.key_length": "wide"}, "key_length is of a kind"),
        ({"llama.attention.key_length": 64}, "has the shape"),
    ],
)
def test_facts_that_cannot_be_compiled(tmp_path: Path, facts: dict[str, object], reason: str) -> None:
    assert reason in refusal(write_tiny_model(tmp_path / "m.gguf", facts=facts))


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", extra={"output_norm.weight": np.full(HIDDEN, np.nan)})
    with pytest.raises(ModelFileError, match=r"output_norm.weight holds numbers that are not finite"):
        GgufModel(path, "m").values("final_norm")


def test_more_tokens_than_rows_of_the_embedding_leave_nothing_in_the_cache(tmp_path: Path) -> None:
    rows = np.ones((VOCAB - 32, HIDDEN), np.float32)
    extra = {"token_embd.weight": rows, "output.weight": rows}
    path = write_tiny_model(tmp_path / "m.gguf", extra=extra)
    with pytest.raises(ModelFileError, match=f"its tokenizer has {VOCAB} tokens, its embedding {VOCAB - 32}"):
        compile_model(str(path), "int4", "x86-64-v3", tmp_path / "cache")
    assert not [entry for entry in (tmp_path / "cache" / "models").iterdir() if not entry.name.endswith(".lock")]


@settings(derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
    end=st.one_of(st.just(1.0), st.floats(0, 1)),
    header_only=st.booleans(),
)
def test_a_damaged_file_is_refused_or_read(
    tiny_model_file: Path,
    tmp_path: Path,
    changes: list[tuple[float, bytes]],
    end: float,
    header_only: bool,
) -> None:
    """Bytes changed anywhere, most often where they decide how the rest is read: nothing but ModelFileError."""
    content = bytearray(tiny_model_file.read_bytes())
    reach = 8000 if header_only else len(content) - 8
    for place, replacement in changes:
        at = int(place * reach)
        content[at : at + len(replacement)] = replacement
    path = tmp_path / "model.gguf"
    path.write_bytes(content[: int(len(content) * end)])
    assert "\n" not in reason_of_refusal(lambda: GgufModel(path, "m"))
