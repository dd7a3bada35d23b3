"""The cache: what is whole is found, what is damaged is built again, and finding needs no TVM."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.build import CompiledModel, compile_model
from compiler.store import default_cache, ensure_entry, read_entry, write_manifest


def build_entry(folder: Path) -> None:
    (folder / "lib.so").write_bytes(b"library")
    write_manifest(folder, {"kind": "artefact"})


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts" / "key"
    assert ensure_entry(folder, build_entry)
    assert not ensure_entry(folder, build_entry)
    assert (read_entry(folder) or {})["kind"] == "artefact"


@pytest.mark.parametrize("damage", ["lib.so", "manifest.json"])
@pytest.mark.parametrize("content", [None, b"", b"LIBRARY", b"{}"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str, content: bytes | None) -> None:
    folder = tmp_path / "artefacts" / "key"
    ensure_entry(folder, build_entry)
    if content is None:
        (folder / damage).unlink()
    else:
        (folder / damage).write_bytes(content)
    assert ensure_entry(folder, build_entry)
    assert (folder / "lib.so").read_bytes() == b"library"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "lib.so").write_bytes(b"half")
        raise RuntimeError("no")

    folder = tmp_path / "artefacts" / "key"
    with pytest.raises(RuntimeError):
        ensure_entry(folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == [".key.lock"]


def test_builders_at_the_same_time_build_once(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts" / "key"
    builds: list[Path] = []

    def build(fresh: Path) -> None:
        builds.append(fresh)
        build_entry(fresh)

    builders = [threading.Thread(target=ensure_entry, args=(folder, build)) for _ in range(8)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(builds) == 1


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MEC_CACHE", raising=False)
    assert default_cache() == tmp_path / "mec"
    monkeypatch.setenv("MEC_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"


@pytest.mark.slow
def test_the_second_call_compiles_nothing_and_imports_no_tvm(compiled_model_dirs: CompiledModel) -> None:
    code = """
import json, sys
from compiler.build import compile_model
found = compile_model("smollm2", "int4")
print(json.dumps([found.was_built, str(found.artefact_dir), [m for m in ("tvm", "tvm_ffi", "gguf") if m in sys.modules]]))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == [False, str(compiled_model_dirs.artefact_dir), []]


@pytest.mark.slow
def test_a_truncated_library_is_compiled_again(tiny_model_file: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    first = compile_model(str(tiny_model_file), "int4", None, tmp_path, lambda stage, done, total: steps.append(stage))
    assert first.was_built
    assert set(steps) == {"reading the model file", "packing weights", "building the tokenizer", "compiling kernels"}
    library = first.artefact_dir / "lib.so"
    whole = library.stat().st_size
    library.write_bytes(library.read_bytes()[:1000])
    assert compile_model(str(tiny_model_file), "int4", None, tmp_path) == first
    assert library.stat().st_size == whole


@pytest.mark.slow
def test_the_command_prints_both_folders(compile_tiny: Callable[..., CompiledModel], tiny_model_file: Path) -> None:
    compiled = compile_tiny()
    done = run_command("--model", str(tiny_model_file), "--quantisation", "int4", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "package": str(compiled.package_dir),
        "artefact": str(compiled.artefact_dir),
        "built": False,
    }


@pytest.mark.parametrize("arguments", [("--model", "nowhere.gguf"), ("--target", "z80")])
def test_the_command_fails_with_one_line(arguments: tuple[str, str]) -> None:
    done = run_command(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
