"""Compiling a model: what the cache holds is found without TVM, what is damaged is compiled again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler.build import CompiledModel, compile_model
from compiler.targets.choice import detect_local_target


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
def test_a_truncated_library_is_compiled_again_and_a_missing_package_is_made(
    compile_tiny: Callable[..., CompiledModel], tiny_model_file: Path, tmp_path: Path
) -> None:
    whole = compile_tiny().artefact_dir / "lib.so"
    library = shutil.copytree(whole.parent, tmp_path / whole.parent.parent.name / whole.parent.name) / "lib.so"
    library.write_bytes(whole.read_bytes()[:1000])
    steps: list[str] = []
    made = compile_model(str(tiny_model_file), "int4", None, tmp_path, lambda stage, done, total: steps.append(stage))
    kernels = f"compiling kernels for {detect_local_target()}"
    assert set(steps) == {"reading the model file", "packing weights", "building the tokenizer", kernels}
    assert (made.was_built, made.artefact_dir) == (True, library.parent)
    assert library.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_two_builds_in_two_folders_and_processes_give_the_same_bytes(
    compile_tiny: Callable[..., CompiledModel], tiny_model_file: Path, tmp_path: Path
) -> None:
    here = compile_tiny()
    done = run_command("--model", str(tiny_model_file), "--quantisation", "int4", "--json", "--cache", str(tmp_path))
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    for folder, other in ((here.package_dir, there["package"]), (here.artefact_dir, there["artefact"])):
        assert folder != Path(other)
        assert folder.name == Path(other).name
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in Path(other).iterdir()
        }


@pytest.mark.slow
def test_the_manifest_states_every_argument(compile_tiny: Callable[..., CompiledModel]) -> None:
    manifest = json.loads((compile_tiny().artefact_dir / "manifest.json").read_text())
    said = {
        "dims",
        "quantisation",
        "target",
        "arch",
        "system",
        "features",
        "kernel_version",
        "tvm",
        "interface",
        "regions",
    }
    assert said <= manifest.keys()
    embed = manifest["functions"]["embed"]
    assert embed["outputs"] == ["h"]
    assert embed["arguments"][:2] == [
        {"name": "tokens", "dtype": "int32", "shape": ["M"]},
        {"name": "h", "dtype": "float32", "shape": ["M", 96]},
    ]
    blocks = manifest["functions"]["blocks"]
    assert {"name": "nt", "dtype": "int32", "shape": None} in blocks["arguments"]
    assert set(blocks["outputs"]) <= {argument["name"] for argument in blocks["arguments"]}
    for function in manifest["functions"].values():
        assert len(function["arguments"]) >= len(function["weights"]) + len(function["scratch"])


@pytest.mark.slow
def test_the_command_prints_both_folders(compile_tiny: Callable[..., CompiledModel], tiny_model_file: Path) -> None:
    compiled = compile_tiny()
    done = run_command("--model", str(tiny_model_file), "--quantisation", "int4", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (target,) = printed.pop("targets")
    assert printed == {"package": str(compiled.package_dir), "artefact": str(compiled.artefact_dir), "built": False}
    assert (target["artefact"], target["built"], target["error"]) == (str(compiled.artefact_dir), False, None)


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
