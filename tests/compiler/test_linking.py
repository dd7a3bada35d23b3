"""Linking an artefact: for this machine, for another without its toolchain, the same twice, and saying what is missing."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.script import tirx as T

from compiler.errors import BuildError
from compiler.linking import link_for
from compiler.targets.choice import find_cpu_target

pytestmark = pytest.mark.slow  # imports the compiler

HERE = platform.machine()
MACHINES = {"x86_64": 62, "aarch64": 183}  # in the header of an ELF file
needs_any_linker = pytest.mark.skipif(
    not (importlib.util.find_spec("ziglang") or shutil.which("ld.lld")),
    reason="linking for another architecture needs pip install 'mec-platform[cross]', or lld",
)


@T.prim_func
def add_one(a: T.Buffer((16,), "float32")):
    T.func_attr({"global_symbol": "add_one", "tirx.noalias": True})
    for i in T.serial(16):
        a[i] = T.exp(a[i]) + T.float32(1)


def export(folder: Path, target: str) -> bytes:
    row = find_cpu_target(target)
    compiled: Any = tvm.compile(tvm.IRModule({"add_one": add_one}), target=tvm.target.Target(row.llvm()))
    compiled.export_library(str(folder / "lib.so"), fcompile=link_for(row.arch))
    return (folder / "lib.so").read_bytes()


@needs_any_linker
@pytest.mark.parametrize("target", ["x86-64-v2", "cortex-a53"])
def test_a_library_is_linked_for_its_architecture_and_the_same_twice(tmp_path: Path, target: str) -> None:
    first = export(tmp_path, target)
    (machine,) = struct.unpack_from("<H", first, 18)
    assert machine == MACHINES[find_cpu_target(target).arch]
    assert b"__tvm_ffi_add_one" in first
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert export(other, target) == first


def test_a_machine_without_a_linker_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BuildError, match=r"no linker for the artefact; install gcc, or run: pip install 'mec-platform\["
    ):
        link_for(HERE)(str(tmp_path / "lib.so"), [])
    other = next(arch for arch in MACHINES if arch != HERE)
    with pytest.raises(
        BuildError, match=rf"no linker for {other} artefacts .* pip install 'mec-platform\[cross\]', or"
    ):
        link_for(other)(str(tmp_path / "lib.so"), [])


def test_a_failing_linker_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"linking the artefact for .* failed"):
        link_for(HERE)(str(tmp_path / "lib.so"), [str(tmp_path / "missing.o")])


def test_without_a_compiler_any_linker_of_the_format_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[list[str]] = []
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/ld.lld" if name == "ld.lld" else None)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: tried.append(command) or subprocess.CompletedProcess(command, 0)
    )
    link_for("aarch64")(str(tmp_path / "lib.so"), ["a.o"])
    assert tried[0][:3] == ["/bin/ld.lld", "-m", "aarch64linux"]
