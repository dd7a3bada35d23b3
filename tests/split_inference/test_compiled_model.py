"""Packages and artefacts on disk, and the node's runtime: what it refuses, what it loads, what it gives back."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from compiler.build import CompiledModel as CompiledDirs
from compiler.build import compile_model
from mec_apps.split_inference.model_package import ModelPackage, PackageError
from mec_apps.split_inference.node.artefact_check import ArtefactError
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_platform.domain.layers import LayerRange

pytestmark = pytest.mark.slow


def load(dirs: CompiledDirs, artefact_dir: Path | None = None, **limits: int) -> CompiledModel:
    sizes = {"threads": 2, "kv_pages": 16, "max_sessions": 2, "max_rows": 32, "context": 128} | limits
    return CompiledModel(ModelPackage.open(dirs.package_dir), artefact_dir or dirs.artefact_dir, **sizes)


def copied(folder: Path, destination: Path) -> Path:
    destination.mkdir()
    for path in folder.iterdir():
        if path.name == "manifest.json":
            shutil.copy(path, destination)
        else:
            (destination / path.name).symlink_to(path)
    return destination


def test_a_layer_range_is_a_slice_of_the_mapped_file(compiled_model_dirs: CompiledDirs) -> None:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    whole, part = package.tensor("blocks.qkv.q"), package.tensor("blocks.qkv.q", LayerRange(10, 20))
    assert part.shape == (10, *whole.shape[1:])
    assert np.shares_memory(whole, part)
    assert package.tensor("head.q") is package.tensor("embed.q")
    assert package.block_is_intact(29)


def test_the_shape_adds_up(compiled_model_dirs: CompiledDirs) -> None:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    shape, spec = package.shape, package.spec
    assert (shape.name, shape.blocks, shape.hidden_bytes_per_row) == ("smollm2", 30, 2304)
    # three quarters of a byte... 4 bits and two float16 for every 32 weights, and two norms
    weights = spec.hidden * (2 * spec.hidden + 2 * spec.kv_heads * spec.head_dim + 3 * spec.ffn)
    assert shape.block_bytes == weights * 5 // 8 + 2 * 4 * spec.hidden
    assert shape.kv_bytes_per_token_per_block == 768
    assert (package.folder / "weights.bin").stat().st_size >= 30 * shape.block_bytes + shape.embed_bytes


def test_missing_and_damaged_packages_are_refused(compiled_model_dirs: CompiledDirs, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"manifest\.json is missing"):
        ModelPackage.open(tmp_path)
    with pytest.raises(PackageError, match="holds a artefact"):
        ModelPackage.open(compiled_model_dirs.artefact_dir)
    folder = copied(compiled_model_dirs.package_dir, tmp_path / "package")
    (folder / "weights.bin").unlink()
    with pytest.raises(PackageError, match=r"weights\.bin is missing"):
        ModelPackage.open(folder)
    (folder / "weights.bin").write_bytes(b"short")
    with pytest.raises(PackageError, match="has 5 bytes, not"):
        ModelPackage.open(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(PackageError, match="damaged"):
        ModelPackage.open(folder)


def test_missing_and_damaged_artefacts_are_refused(compiled_model_dirs: CompiledDirs, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is missing; run: mec compile"):
        load(compiled_model_dirs, tmp_path)
    folder = copied(compiled_model_dirs.artefact_dir, tmp_path / "artefact")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "lib.so").unlink()
    (folder / "lib.so").write_bytes(bytes(manifest["files"]["lib.so"]["bytes"]))
    with pytest.raises(ArtefactError, match="its library is no ELF library for 64 bits"):
        load(compiled_model_dirs, folder)
    (folder / "lib.so").write_bytes(b"")
    with pytest.raises(ArtefactError, match="damaged"):
        load(compiled_model_dirs, folder)


def test_an_artefact_of_another_quantisation_or_cpu_is_refused(
    compiled_model_dirs: CompiledDirs, tmp_path: Path
) -> None:
    with pytest.raises(ArtefactError, match="another model or quantisation"):
        load(compiled_model_dirs, compile_model("smollm2", "int8").artefact_dir)
    folder = copied(compiled_model_dirs.artefact_dir, tmp_path / "artefact")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"features": ["quantum"]}))
    with pytest.raises(ArtefactError, match="and lacks quantum"):
        load(compiled_model_dirs, folder)


def test_an_artefact_for_another_architecture_is_refused(compiled_model_dirs: CompiledDirs) -> None:
    there = compile_model("smollm2", "int4", "raspberry-pi-5")
    assert there.package_dir == compiled_model_dirs.package_dir
    with pytest.raises(ArtefactError, match=r"for raspberry-pi-5 \(aarch64\); .* \(x86_64\); run on it: mec compile"):
        load(compiled_model_dirs, there.artefact_dir)


def test_a_library_is_checked_before_it_is_loaded(compiled_model_dirs: CompiledDirs, tmp_path: Path) -> None:
    """The library of another architecture is this one's with another number in its header: enough for the refusal."""
    folder = copied(compiled_model_dirs.artefact_dir, tmp_path / "artefact")
    whole = (folder / "lib.so").read_bytes()
    (folder / "lib.so").unlink()
    (folder / "lib.so").write_bytes(whole[:-1] + b"!")
    with pytest.raises(ArtefactError, match=r"its library has the hash [0-9a-f]{16}, its manifest says [0-9a-f]{16}"):
        load(compiled_model_dirs, folder)
    (folder / "lib.so").write_bytes(whole[:18] + (183).to_bytes(2, "little") + whole[20:])
    with pytest.raises(ArtefactError, match="says it was compiled for x86_64, but its library is aarch64"):
        load(compiled_model_dirs, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"arch": "aarch64"}))
    with pytest.raises(ArtefactError, match=r"\(aarch64\); .* \(x86_64\); run on it: mec compile"):
        load(compiled_model_dirs, folder)


def test_limits_are_kept(compiled_model_dirs: CompiledDirs) -> None:
    with pytest.raises(ValueError, match="context"):
        load(compiled_model_dirs, context=9000)
    with pytest.raises(ValueError, match="threads"):
        load(compiled_model_dirs, threads=0)
    model = load(compiled_model_dirs)
    with pytest.raises(ValueError, match="1 to 32 rows, not 33"):
        model.embed(np.zeros(33, np.int32))
    hidden = model.embed(np.zeros(1, np.int32))
    zero = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match="outside"):
        model.run_blocks(LayerRange(20, 31), hidden, zero, zero)
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 49152\)"):
        model.embed(np.array([49152], np.int32))
    with pytest.raises(ValueError, match=r"positions must be in \[0, 128\)"):
        model.run_blocks(LayerRange(0, 30), hidden, zero + 128, zero)
    with pytest.raises(ValueError, match=r"slots must be in \[0, 2\)"):
        model.run_blocks(LayerRange(0, 30), hidden, zero, zero - 1)


def test_calls_from_a_second_thread_are_refused(compiled_model_dirs: CompiledDirs) -> None:
    model = load(compiled_model_dirs)
    model.embed(np.zeros(1, np.int32))
    caught: list[RuntimeError] = []

    def call() -> None:
        try:
            model.embed(np.zeros(1, np.int32))
        except RuntimeError as error:
            caught.append(error)

    other = threading.Thread(target=call)
    other.start()
    other.join()
    assert "one thread only" in str(caught[0])


def test_released_layers_read_as_zeros(compiled_model_dirs: CompiledDirs) -> None:
    model = load(compiled_model_dirs)
    rows = np.arange(4, dtype=np.int32)
    hidden = model.embed(rows)
    model.run_blocks(LayerRange(0, 30), hidden, rows, np.zeros(4, np.int32))
    assert all(model.keys[block].any() and model.values[block].any() for block in range(30))
    model.release_layers(LayerRange(10, 20))
    held = [block for block in range(30) if model.keys[block].any() or model.values[block].any()]
    assert held == [*range(10), *range(20, 30)]


def test_kv_of_a_released_layer_is_wiped_where_it_shares_memory_pages_with_its_neighbours(
    compiled_model_dirs: CompiledDirs,
) -> None:
    model = load(compiled_model_dirs, kv_pages=15)
    assert model.keys[0].nbytes % mmap.PAGESIZE  # else the test shows nothing
    for array in (model.keys, model.values):
        array[:] = 1
    for layer in (3, 4, 9, 29, 0):
        model.release_layers(LayerRange(layer, layer + 1))
    model.release_layers(LayerRange(12, 20))
    wiped = {0, 3, 4, 9, *range(12, 20), 29}
    for array in (model.keys, model.values):
        assert {layer for layer in range(30) if not array[layer].any()} == wiped
        assert all((array[layer] == 1).all() for layer in range(30) if layer not in wiped)


def test_results_do_not_change_under_later_calls(compiled_model_dirs: CompiledDirs) -> None:
    model = load(compiled_model_dirs)
    first = model.embed(np.array([1], np.int32))
    before = first.copy()
    second = model.run_blocks(LayerRange(0, 3), first, np.zeros(1, np.int32), np.zeros(1, np.int32))
    model.embed(np.array([2], np.int32))
    assert first.tobytes() == before.tobytes()
    assert second.shape == (1, 576)


def test_a_node_loads_neither_the_compiler_nor_torch(compiled_model_dirs: CompiledDirs) -> None:
    code = f"""
import sys
import numpy as np
from pathlib import Path
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
model = CompiledModel(ModelPackage.open(Path({str(compiled_model_dirs.package_dir)!r})),
    Path({str(compiled_model_dirs.artefact_dir)!r}), threads=1, kv_pages=4, max_sessions=1, max_rows=4, context=64)
assert model.head(model.embed(np.array([5], np.int32))).shape == (1, 49152)
maps = Path("/proc/self/maps").read_text()
assert "libtvm_runtime.so" in maps
print([word for word in ("libtvm_compiler", "libtorch") if word in maps], [m for m in ("tvm", "torch", "compiler")
    if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "[] []", done.stderr
