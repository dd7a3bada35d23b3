"""Models of every family against `transformers`, read from its folders and from GGUF files of the same weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compiler.build import compile_model
from compiler.models.gguf_file import GgufModel
from compiler.models.hugging_face import HuggingFaceModel
from compiler.models.rotary import Rotary, rotary_table
from compiler.models.tensors import tensor_names
from mec_apps.split_inference.model_package import ModelPackage
from tests.compiler.families import (
    CONTEXT,
    FAMILIES,
    VOCAB,
    make_model,
    reference_logits,
    save_folder,
    write_gguf,
)
from tests.compiler.running import open_model, run_tokens
from tests.compiler.torch_reference import TorchReference

# Long enough to be past the original context of scaled embeddings.
TOKENS = [int(t) for t in np.random.default_rng(0).integers(0, VOCAB, CONTEXT - 4)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """folder_of(family): the model in `transformers`, and its folder; made once."""
    made: dict[str, tuple[Any, Path]] = {}

    def make(family: str) -> tuple[Any, Path]:
        if family not in made:
            model = make_model(family)
            made[family] = model, save_folder(model, tmp_path_factory.mktemp("folders") / family)
        return made[family]

    return make


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((values - expected) ** 2).mean()) / expected.std())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_read_as_transformers_means_it(folder_of: Callable[[str], tuple[Any, Path]], family: str) -> None:
    model, folder = folder_of(family)
    logits = TorchReference(HuggingFaceModel(folder, family), torch.float32).logits(TOKENS)
    assert relative_error(logits, reference_logits(model, TOKENS)) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gguf_file_of_the_same_weights_gives_the_same_model(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path, family: str
) -> None:
    model, folder = folder_of(family)
    ours, theirs = GgufModel(write_gguf(model, tmp_path / "m.gguf"), family), HuggingFaceModel(folder, family)
    for name in tensor_names(theirs.spec):
        np.testing.assert_array_equal(ours.values(name), theirs.values(name), name)
    np.testing.assert_allclose(ours.spec.rotary.rates, theirs.spec.rotary.rates, rtol=1e-6)
    assert ours.spec.rotary.magnitude == theirs.spec.rotary.magnitude
    # what else there is, but for the norms' epsilon, which GGUF rounds to float32
    one, other = (dataclasses.replace(model.spec, rotary=theirs.spec.rotary, rms_eps=1e-5) for model in (ours, theirs))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_compiled_model_follows_transformers(folder_of: Callable[[str], tuple[Any, Path]], family: str) -> None:
    """float16 keys and values, and nothing else, stand between the two."""
    model, folder = folder_of(family)
    compiled = open_model(compile_model(str(folder), "f32"), context=CONTEXT)
    logits = compiled.head(run_tokens(compiled, TOKENS, blocks=2)).copy()
    assert logits.shape == (len(TOKENS), VOCAB)
    assert relative_error(logits, reference_logits(model, TOKENS)) < 1e-3
    assert relative_error(logits, TorchReference(HuggingFaceModel(folder, family)).logits(TOKENS)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("quantisation", "bound"), [("f16", 3e-3), ("bf16", 0.02), ("int8", 0.05)])
def test_stored_in_fewer_bits_it_follows_as_closely_as_they_allow(
    folder_of: Callable[[str], tuple[Any, Path]], quantisation: str, bound: float
) -> None:
    model, folder = folder_of("qwen2")
    compiled = open_model(compile_model(str(folder), quantisation), context=CONTEXT)
    logits = compiled.head(run_tokens(compiled, TOKENS, blocks=2))
    assert relative_error(logits, reference_logits(model, TOKENS)) < bound


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama-tied", "qwen2", "qwen3"])
def test_folder_and_gguf_file_are_packed_to_the_same_bytes(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path, family: str
) -> None:
    model, folder = folder_of(family)
    file = write_gguf(model, tmp_path / f"{family}.gguf")
    one, other = (ModelPackage.open(compile_model(str(path), "f32").package_dir) for path in (folder, file))
    names = ["embed.q", "head.norm", "blocks.qkv.q", "blocks.output.q", "blocks.down.q", "rope"]
    names += ["blocks.qkv.bias"] if one.spec.qkv_bias else []
    names += ["blocks.query_norm", "blocks.key_norm"] if one.spec.qk_norm else []
    for name in names:
        assert one.tensor(name).tobytes() == other.tensor(name).tobytes(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_exactly_and_from_shards(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model("qwen3")
    folder = save_folder(model, tmp_path / "m", dtype, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    read = HuggingFaceModel(folder, "m")
    weight = model.model.layers[1].self_attn.q_proj.weight.to(dtype).float().detach().numpy()
    np.testing.assert_array_equal(read.values("blocks.1.query"), weight)
    assert read.spec.context == CONTEXT


@pytest.mark.parametrize("family", ["llama-linear", "llama-yarn", "llama3"])
def test_older_configurations_state_their_rotary_embedding_elsewhere(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path, family: str
) -> None:
    _, folder = folder_of(family)
    older = copy_with_config(folder, tmp_path / "older", lambda config: restate_rope(config))
    rotary = HuggingFaceModel(older, "m").spec.rotary
    assert rotary == HuggingFaceModel(folder, "m").spec.rotary


def restate_rope(config: dict[str, Any]) -> None:
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}


def copy_with_config(folder: Path, copy: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder of the same files with another config.json."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("stated", "context"),
    [
        ({"sliding_window": 20}, 20),
        ({"sliding_window": None}, CONTEXT),
        ({"sliding_window": 2 * CONTEXT}, CONTEXT),
        ({"max_position_embeddings": 9000}, 9000),
    ],
)
def test_a_sliding_window_bounds_the_context(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path, stated: dict[str, int | None], context: int
) -> None:
    _, folder = folder_of("mistral")
    changed = copy_with_config(folder, tmp_path / "m", lambda config: config.update(stated))
    assert HuggingFaceModel(changed, "m").spec.context == context


def test_mistral_without_a_stated_window_has_the_usual_one(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        del config["sliding_window"]
        config["max_position_embeddings"] = 9000

    changed = copy_with_config(folder_of("mistral")[1], tmp_path / "m", change)
    assert HuggingFaceModel(changed, "m").spec.context == 4096


def test_yarn_reaches_the_context_that_it_was_stretched_to(
    folder_of: Callable[[str], tuple[Any, Path]], tmp_path: Path
) -> None:
    changed = copy_with_config(
        folder_of("llama-yarn")[1], tmp_path / "m", lambda config: config["rope_parameters"].update(factor=100.0)
    )
    assert HuggingFaceModel(changed, "m").spec.context == 100 * CONTEXT // 4


def test_the_rotary_table_continues_over_its_chunks_and_does_not_turn_padding() -> None:
    rotary = Rotary((1.0, 0.1, 0.01), 1.5)
    whole = rotary_table(rotary, 32, 0, 50)
    parts = [rotary_table(rotary, 32, 0, 20), rotary_table(rotary, 32, 20, 50)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_allclose(whole[7, :3], 1.5 * np.cos([7, 0.7, 0.07]), rtol=1e-6)
    assert (whole[:, 3:16] == 1.5).all()
    assert not whole[:, 19:].any()
