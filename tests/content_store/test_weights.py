"""Weights in parts: where a part's bytes lie, and packages that hold some of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mec_platform.content_store.partial_weights import PartialWeights, create_partial_weights
from mec_platform.content_store.store import ContentStore
from mec_platform.content_store.weights import (
    Extent,
    ManifestError,
    WeightPart,
    hash_part,
    parts_of_stage,
    read_extent,
    weight_parts,
)
from tests.content_store.packages import BLOCK_BYTES, BLOCKS, add_package


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    store = ContentStore(tmp_path / "whole")
    manifest = add_package(store)
    return store.folder("models", "p1"), manifest


@pytest.fixture
def partial(tmp_path: Path, whole: tuple[Path, dict[str, Any]]) -> PartialWeights:
    folder = tmp_path / "partial"
    folder.mkdir()
    create_partial_weights(folder, whole[1])
    return PartialWeights(folder, whole[1])


def bytes_of(folder: Path, part: WeightPart) -> bytes:
    with (folder / "weights.bin").open("rb") as file:
        return b"".join(chunk for extent in part.extents for chunk in read_extent(file.fileno(), extent, 1000))


def test_every_part_has_the_bytes_of_its_hash(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = whole
    parts = weight_parts(manifest)
    assert list(parts) == [*(f"block.{block}" for block in range(BLOCKS)), "head", "embed", "rope"]
    assert parts["block.3"].size == sum(BLOCK_BYTES)
    for part in parts.values():
        assert hash_part(folder / "weights.bin", part) == part.sha256


def test_extents_go_on_from_any_byte() -> None:
    part = WeightPart("block.0", "", (Extent(100, 10), Extent(500, 5)))
    assert list(part.extents_from(0)) == [Extent(100, 10), Extent(500, 5)]
    assert list(part.extents_from(9)) == [Extent(109, 1), Extent(500, 5)]
    assert list(part.extents_from(10)) == [Extent(500, 5)]
    assert list(part.extents_from(14)) == [Extent(504, 1)]
    assert list(part.extents_from(15)) == []


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ({"is_first": True, "is_last": False, "tied_embedding": True}, {"embed"}),
        ({"is_first": False, "is_last": False, "tied_embedding": True}, set()),
        ({"is_first": False, "is_last": True, "tied_embedding": False}, {"head"}),
        ({"is_first": False, "is_last": True, "tied_embedding": True}, {"head", "embed"}),
    ],
)
def test_a_stage_reads_its_blocks_and_the_text_matrices_at_the_ends(stage: dict[str, bool], more: set[str]) -> None:
    assert set(parts_of_stage(2, 4, **stage)) == {"rope", "block.2", "block.3"} | more


def test_blocks_of_different_shapes_have_tensors_of_their_own() -> None:
    tensors = [("blocks.0.0", 0, 10), ("blocks.1.0", 4096, 20), ("blocks.0.1", 8192, 30)]
    manifest = {
        "files": {"weights.bin": {"bytes": 9000}},
        "block_sha256": ["a", "b"],
        "tensors": [{"name": name, "offset": offset, "bytes": size} for name, offset, size in tensors],
    }
    assert weight_parts(manifest) == {
        "block.0": WeightPart("block.0", "a", (Extent(0, 10), Extent(8192, 30))),
        "block.1": WeightPart("block.1", "b", (Extent(4096, 20),)),
    }


@pytest.mark.parametrize(
    ("lost", "word"),
    [("files", "files"), ("block_sha256", "block_sha256"), ("part_sha256", "no hash of embed"), ("tensors", "tensors")],
)
def test_a_manifest_that_says_less_is_refused(whole: tuple[Path, dict[str, Any]], lost: str, word: str) -> None:
    with pytest.raises(ManifestError, match=word):
        weight_parts({name: value for name, value in whole[1].items() if name != lost})


@pytest.mark.parametrize("change", [{"offset": -4096}, {"bytes": 10**12}, {"bytes": "many"}])
def test_tensors_outside_the_file_are_refused(whole: tuple[Path, dict[str, Any]], change: dict[str, Any]) -> None:
    manifest = json.loads(json.dumps(whole[1]))
    manifest["tensors"][0] |= change
    with pytest.raises(ManifestError):
        weight_parts(manifest)


def test_a_part_is_whole_once_its_bytes_are_right(whole: tuple[Path, dict[str, Any]], partial: PartialWeights) -> None:
    folder, _ = whole
    part = partial.parts["block.2"]
    data = bytes_of(folder, part)
    with partial.filling():
        partial.write(part, 0, data[:123_456])
        assert not partial.finish(part)
        assert partial.whole_parts() == frozenset()
        partial.write(part, 123_456, data[123_456:])
        assert partial.finish(part)
    assert partial.whole_parts() == {"block.2"}


def test_more_bytes_than_a_part_has_are_refused(partial: PartialWeights) -> None:
    part = partial.parts["rope"]
    with pytest.raises(ValueError, match="rope has 40000 bytes"):
        partial.write(part, part.size - 1, b"xy")


@pytest.mark.parametrize("record", ["", "{", "[1, null]", '["no part"]', '{"block.1": 1}'])
def test_a_damaged_record_means_that_nothing_is_whole(partial: PartialWeights, tmp_path: Path, record: str) -> None:
    (tmp_path / "partial" / "parts.json").write_text(record)
    assert partial.whole_parts() == frozenset()
