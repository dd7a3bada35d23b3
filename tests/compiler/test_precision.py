"""`auto` is the smallest storage that keeps what a file has, and shares the cache with the quantisation it equals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from compiler.build import compile_model, ensure_model_package
from compiler.errors import QuantisationError
from compiler.models.gguf_file import GgufModel
from compiler.models.padding import padded_groups
from compiler.models.precision import choose_quantisation
from compiler.quantisation import QUANTISATIONS, find_quantisation, mixed_quantisation
from mec_apps.split_inference.model_package import ModelPackage
from mec_platform.content_store.entries import read_entry
from mec_platform.content_store.store import ContentStore
from tests.compiler.conftest import write_tiny_model
from tests.compiler.running import open_model, run_tokens
from tests.compiler.test_groups import random_blocks
from tests.compiler.torch_reference import TorchReference


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [(Kind.Q4_0, "int4"), (Kind.Q4_1, "int4"), (Kind.Q5_0, "int8"), (Kind.Q8_0, "int8"), (Kind.F16, "int4")],
)
def test_what_a_file_has_decides(tmp_path: Path, kind: Kind, chosen: str) -> None:
    model = GgufModel(write_tiny_model(tmp_path / "m.gguf", kind=kind), "m")
    assert choose_quantisation(model).name == chosen


def test_a_matrix_is_stored_as_its_blocks_need_it(tiny_model_file: Path) -> None:
    """qkv holds a Q8_0, output is F16, gate_up holds an F32, down is Q8_0."""
    assert choose_quantisation(GgufModel(tiny_model_file, "m")).name == "int8"


def test_4_bits_that_padding_moves_to_other_groups_need_8(tmp_path: Path) -> None:
    """Heads of 12 are padded to 32, and so the columns of the output matrix move."""
    model = GgufModel(write_tiny_model(tmp_path / "m.gguf", kind=Kind.Q4_1, heads=8), "m")
    assert choose_quantisation(model).name == "mixed-48448"
    groups = padded_groups(model, "blocks.0.output", 8)
    assert groups.q.shape == (96, 8 * 32)
    columns = groups.values().reshape(96, 8, 2, 16)
    half_step = np.repeat(groups.d.astype(np.float32), 32, axis=1).reshape(columns.shape) * 0.51 + 1e-3
    expected = np.zeros_like(columns)
    expected[..., :6] = model.values("blocks.0.output").reshape(96, 8, 2, 6)
    assert (np.abs(columns - expected) <= half_step).all()


def write_k_quants(path: Path) -> Path:
    """Q4_K and Q5_K as published files mix them with Q6_K, where rows are long enough; Q4_1 elsewhere."""
    raw = {}
    shapes = {"attn_q": ("Q4_K", 256), "attn_k": ("Q4_K", 64), "attn_v": ("Q6_K", 64), "ffn_gate": ("Q4_K", 160)}
    for block in range(4):
        for seed, (name, (kind, rows)) in enumerate(shapes.items()):
            stored = "Q5_K" if name == "attn_q" and block == 2 else kind
            content = random_blocks(stored, rows, 256, 2e-4, seed=block * 8 + seed)
            raw[f"blk.{block}.{name}.weight"] = (content, Kind[stored])
    return write_tiny_model(path, hidden=256, heads=4, kind=Kind.Q4_1, raw=raw)


@pytest.mark.slow
def test_a_mixed_file_compiles_to_mixed_storages_and_keeps_its_numbers(tmp_path: Path) -> None:
    path = write_k_quants(tmp_path / "k-quants.gguf")
    dirs = compile_model(str(path))
    model = open_model(dirs)
    assert ModelPackage.open(dirs.package_dir).quantisation == "mixed-84448"
    tokens = [int(token) for token in np.random.default_rng(2).integers(0, 288, 60)]
    logits = model.head(run_tokens(model, tokens, blocks=4))
    reference = TorchReference(GgufModel(path, "m")).logits(tokens)
    # nearly all of it is what Q6_K of random bits loses in groups of 32
    assert np.sqrt(((logits - reference) ** 2).mean()) / reference.std() < 0.015


def test_every_name_is_found_again() -> None:
    for row in QUANTISATIONS:
        assert find_quantisation(row.name) is row
    mixed = mixed_quantisation("int8", "int4", "int4", "int8")
    assert mixed.name == "mixed-84488"
    assert find_quantisation(mixed.name) == mixed
    assert mixed_quantisation("int4", "int4", "int4", "int4") is find_quantisation("int4")


@pytest.mark.parametrize("name", ["int3", "mixed-84484", "mixed-8448", "mixed-88888", "84488", "int99", ""])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(QuantisationError, match=f"unknown quantisation '{name}'; known ones: auto, int4, int8, f16"):
        find_quantisation(name)


def test_auto_shares_the_package_and_opens_the_file_once(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", kind=Kind.Q4_0)
    steps: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        steps.append(f"{stage} {done}")

    folder, built = ensure_model_package(str(path), "auto", ContentStore(tmp_path / "cache"), watch)
    assert built
    assert steps.count("reading the model file 0") == 1
    steps.clear()
    for name in ("int4", "auto"):
        assert ensure_model_package(str(path), name, ContentStore(tmp_path / "cache"), watch) == (folder, False)
    assert steps == []
    assert (read_entry(folder) or {})["quantisation"] == "int4"
    assert ModelPackage.open(folder).spec.stop_ids == (1,)


def test_a_damaged_choice_is_made_again(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", kind=Kind.Q4_0)
    folder, _ = ensure_model_package(str(path), "auto", ContentStore(tmp_path / "cache"), lambda *step: None)
    (kept,) = (tmp_path / "cache" / "quantisations").glob("*/manifest.json")
    kept.write_text("{")
    assert ensure_model_package(str(path), "auto", ContentStore(tmp_path / "cache"), lambda *step: None) == (
        folder,
        False,
    )
