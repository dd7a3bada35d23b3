"""Model files that cannot be used are refused with one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.errors import ModelFileError
from compiler.models.gguf_file import GgufModel
from compiler.models.locate import find_model_file
from tests.compiler.conftest import BLOCKS, CONTEXT, FFN, VOCAB, write_tiny_model


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


def test_missing_file(tmp_path: Path) -> None:
    assert "no model file" in refusal(tmp_path / "none.gguf")
    with pytest.raises(
        ModelFileError, match=r"give the path of a \.gguf file or of a Hugging Face folder, or 'smollm2'"
    ):
        find_model_file("does-not-exist")


def test_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"this is no model at all, but long enough to be read as one" * 10)
    assert "not a readable GGUF file" in refusal(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"")
    assert "not a readable GGUF file" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_truncated_file(tiny_model_file: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.gguf"
    whole = tiny_model_file.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not a readable GGUF file" in refusal(path)


def test_another_architecture(tmp_path: Path) -> None:
    assert "architecture 'gpt2'" in refusal(write_tiny_model(tmp_path / "m.gguf", architecture="gpt2"))


def test_missing_tensor(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", without="blk.2.ffn_up.weight")
    assert "lacks the tensor blk.2.ffn_up.weight" in refusal(path)
