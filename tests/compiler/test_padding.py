"""What packing adds to odd widths is zeros, in the places where the kernels expect them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from compiler.models.gguf_file import GgufModel
from compiler.models.groups import Groups
from compiler.models.padding import axis_index, padded_groups, padded_values, padded_vector
from tests.compiler.conftest import FFN, HEADS, VOCAB, write_tiny_model

HIDDEN = 102  # heads of 34: halves of 17 become 32, and 102 columns 128


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> GgufModel:
    return GgufModel(write_tiny_model(tmp_path_factory.mktemp("odd") / "m.gguf", hidden=HIDDEN), "m")


def test_rotary_halves_start_where_the_kernels_rotate(odd: GgufModel) -> None:
    dims = odd.spec.dims
    assert (dims.hidden, dims.head_dim, dims.norm_width, dims.score_width) == (128, 64, HIDDEN, 34)
    index = axis_index(odd.spec, "query_heads").reshape(HEADS, 2, 32)
    for head in range(HEADS):
        for half in range(2):
            start = head * 34 + half * 17
            assert list(index[head, half]) == [*range(start, start + 17), *[-1] * 15]


def test_every_matrix_keeps_its_numbers_between_zeros(odd: GgufModel) -> None:
    query = padded_values(odd, "blocks.1.query").reshape(HEADS, 2, 32, 128)
    np.testing.assert_array_equal(query[:, :, :17, :HIDDEN].reshape(HIDDEN, HIDDEN), odd.values("blocks.1.query"))
    assert not query[:, :, 17:].any()
    assert not query[..., HIDDEN:].any()
    output = padded_values(odd, "blocks.1.output").reshape(128, HEADS, 2, 32)
    np.testing.assert_array_equal(output[:HIDDEN, ..., :17].reshape(HIDDEN, HIDDEN), odd.values("blocks.1.output"))
    assert not output[HIDDEN:].any()
    assert not output[..., 17:].any()
    down = padded_values(odd, "blocks.1.down")
    np.testing.assert_array_equal(down[:HIDDEN], odd.values("blocks.1.down"))
    assert not down[HIDDEN:].any()


def test_norms_end_in_zeros(odd: GgufModel) -> None:
    gains = padded_vector(odd, "final_norm")
    np.testing.assert_array_equal(gains[:HIDDEN], odd.values("final_norm"))
    assert gains.shape == (128,)
    assert not gains[HIDDEN:].any()


@pytest.mark.parametrize("bits", [4, 8])
def test_padded_rows_of_groups_are_exactly_zero(odd: GgufModel, bits: int) -> None:
    for name in ("blocks.0.output", "blocks.0.down"):
        assert not padded_groups(odd, name, bits).values()[HIDDEN:].any()


def test_chunks_of_rows_are_the_whole(odd: GgufModel) -> None:
    rows = odd.spec.dims.vocab
    assert (VOCAB, rows) == (288, 288)
    chunks = [slice(0, 128), slice(128, 256), slice(256, 384)]
    np.testing.assert_array_equal(
        np.concatenate([padded_values(odd, "head", rows) for rows in chunks]), padded_values(odd, "head")
    )
    np.testing.assert_array_equal(
        np.concatenate([padded_groups(odd, "head", 8, rows).values() for rows in chunks]),
        padded_groups(odd, "head", 8).values(),
    )


def test_widths_that_fit_are_left_as_the_file_has_them(tmp_path: Path) -> None:
    model = GgufModel(write_tiny_model(tmp_path / "m.gguf", kind=Kind.Q4_0), "m")
    for part in ("query", "output", "gate", "down"):
        ours, theirs = padded_groups(model, f"blocks.0.{part}", 4), model.groups(f"blocks.0.{part}", 4)
        assert isinstance(ours, Groups)
        assert ours.q.tobytes() == theirs.q.tobytes()
    assert padded_groups(model, "blocks.0.gate", 4).q.shape == (FFN, 96)
