"""Hugging Face folders that cannot be used are refused with one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.build import compile_model
from compiler.errors import ModelFileError
from compiler.models.hugging_face import HuggingFaceModel
from tests.compiler.damage import reason_of_refusal

HIDDEN, HEADS, KV_HEADS, FFN, VOCAB = 64, 4, 2, 96, 70
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
LAYER = "model.layers.0."


def tiny_tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
        LAYER + "input_layernorm.weight": (HIDDEN,),
        LAYER + "post_attention_layernorm.weight": (HIDDEN,),
        LAYER + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        LAYER + "self_attn.k_proj.weight": (kv, HIDDEN),
        LAYER + "self_attn.v_proj.weight": (kv, HIDDEN),
        LAYER + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        LAYER + "mlp.gate_proj.weight": (FFN, HIDDEN),
        LAYER + "mlp.up_proj.weight": (FFN, HIDDEN),
        LAYER + "mlp.down_proj.weight": (HIDDEN, FFN),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The format by hand, so that it can be written wrongly too."""
    header, data = {}, b""
    for name, value in tensors.items():
        kind = {"float32": "F32", "float64": "F64", "int8": "I8"}[value.dtype.name]
        offsets = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": offsets}
        data += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_folder(folder: Path, config: dict[str, Any] | None = None, **tensors: np.ndarray | None) -> Path:
    """A whole folder; `config` and `tensors` replace what stands there, None removes it."""
    folder.mkdir()
    stated = {key: value for key, value in {**CONFIG, **(config or {})}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(stated))
    stored = {name: value for name, value in {**tiny_tensors(), **tensors}.items() if value is not None}
    write_safetensors(folder / "model.safetensors", stored)
    letters = {chr(256 + i): i for i in range(VOCAB)}
    model = {"type": "BPE", "vocab": letters, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        HuggingFaceModel(folder, "m")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_folder_is_read(tmp_path: Path) -> None:
    model = HuggingFaceModel(write_folder(tmp_path / "m"), "m")
    assert (model.spec.hidden, model.spec.head_dim, model.spec.tied_embedding) == (HIDDEN, HIDDEN // HEADS, False)
    np.testing.assert_array_equal(model.values("blocks.0.up"), tiny_tensors()[LAYER + "mlp.up_proj.weight"])
    assert reason_of_refusal(lambda: model) == ""


def test_a_tied_model_may_store_its_head_all_the_same(tmp_path: Path) -> None:
    assert HuggingFaceModel(write_folder(tmp_path / "m", {"tie_word_embeddings": True}), "m").spec.tied_embedding


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture 'GPT2LMHeadModel'; supported are LlamaForCausalLM"),
        ({"architectures": "absent"}, "architecture 'unknown'"),
        ({"hidden_size": "absent"}, "does not state hidden_size"),
        ({"hidden_size": "wide"}, "its hidden_size is 'wide'"),
        ({"hidden_size": 10**30}, "its hidden_size is 1000"),
        ({"hidden_size": 66}, "cannot be shared by 4 heads"),
        ({"num_hidden_layers": 2}, "lacks the tensor model.layers.1.input_layernorm.weight"),
        ({"num_hidden_layers": 0}, "its number of blocks is 0"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 KV heads"),
        ({"intermediate_size": 90}, "has the shape (96, 64), not (90, 64)"),
        ({"rms_norm_eps": -1}, "not finite"),
        ({"hidden_act": "gelu"}, "uses the activation 'gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised already"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary embedding by 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rotary embedding by 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "does not state factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}, "its rotary embedding cannot be"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": -1.0}}, "its rotary embedding cannot be"),
        ({"rope_scaling": [1]}, "its rope_scaling is [1]"),
        ({"rope_theta": 0.5}, "its rotary embedding cannot be"),
        ({"partial_rotary_factor": 0.5}, "rotates a part of each head only"),
        ({"max_position_embeddings": 10**9}, "context of 1000000000 tokens cannot be"),
    ],
)
def test_a_configuration_that_cannot_be_compiled(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    assert reason in refusal(write_folder(tmp_path / "m", config))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("model.norm.weight", None, "lacks the tensor model.norm.weight"),
        ("model.norm.weight", np.ones(65, np.float32), "has the shape (65,), not (64,)"),
        ("model.norm.weight", np.ones(64), "model.norm.weight is F64; supported are F32"),
        (LAYER + "mlp.up_proj.weight", np.ones((96, 64), np.int8), "mlp.up_proj.weight is I8"),
        (LAYER + "self_attn.o_proj.bias", np.ones(64, np.float32), "self_attn.o_proj.bias', which is not supported"),
        (LAYER + "mlp.up_proj.bias", np.ones(96, np.float32), "mlp.up_proj.bias', which is not supported"),
        (LAYER + "self_attn.q_proj.bias", np.ones(64, np.float32), "lacks the tensor model.layers.0.self_attn.k_proj"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, name: str, value: np.ndarray | None, reason: str) -> None:
    assert reason in refusal(write_folder(tmp_path / "m", **{name: value}))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_or_missing_file(tmp_path: Path, file: str, content: bytes | None) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    assert file in refusal(folder)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "no file of the folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "no file of the folder"),
        ({"weight_map": {"a": ".."}}, "lacks .., which its index names"),
        ({"weight_map": {"a": "missing.safetensors"}}, "lacks missing.safetensors, which its index names"),
        ({"weight_map": {"a": 3}}, "maps no tensors to files"),
        ({"weight_map": {}}, "maps no tensors to files"),
        ([], "holds no JSON object"),
    ],
)
def test_an_index_of_shards_that_leads_nowhere(tmp_path: Path, index: object, reason: str) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert reason in refusal(folder)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    weights = {"a": "model.safetensors", "b": "other.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert "which another file holds too" in refusal(folder)


@pytest.mark.parametrize(
    ("break_folder", "reason"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    ],
)
def test_a_folder_that_cannot_be_compiled_leaves_nothing_in_the_cache(
    tmp_path: Path, break_folder: Callable[[Path], None], reason: str
) -> None:
    folder, cache = write_folder(tmp_path / "m"), tmp_path / "cache"
    break_folder(folder)
    for quantisation in ("int4", "auto"):
        with pytest.raises(ModelFileError, match=reason):
            compile_model(str(folder), quantisation, "x86-64-v3", cache)
    assert not [entry for entry in cache.glob("models/*") if not entry.name.endswith(".lock")]


@settings(derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(["config.json", "model.safetensors"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=3),
    end=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_a_damaged_folder_is_refused_or_read(
    tmp_path: Path, file: str, changes: list[tuple[float, bytes]], end: float
) -> None:
    folder = tmp_path / "m"
    if folder.exists():
        shutil.rmtree(folder)
    write_folder(folder)
    content = bytearray((folder / file).read_bytes())
    header = min(len(content), 8 + int.from_bytes(content[:8], "little"))
    for place, replacement in changes:
        at = int(place * (header - 1))
        content[at : at + len(replacement)] = replacement
    (folder / file).write_bytes(content[: int(len(content) * end)])
    assert "\n" not in reason_of_refusal(lambda: HuggingFaceModel(folder, "m"))
