"""Artefacts for CUDA, compiled on a machine that may have no GPU: what they carry, and what ptxas says of their kernels.

Nothing here runs on a GPU; `tests/hardware` does, where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler.build import CompiledModel, compile_model
from compiler.cuda_toolchain import CudaCompiler, find_nvcc
from compiler.errors import BuildError
from compiler.fatbin import check_fatbin, read_fatbins
from compiler.targets.choice import find_gpu_target, find_target
from compiler.targets.gpu import GPU_TARGETS, SIMULATED_GPU, GpuTarget


def gpu(name: str) -> GpuTarget:
    row = find_target(name)
    assert isinstance(row, GpuTarget)
    return row


@pytest.fixture(scope="module")
def nvcc() -> CudaCompiler:
    try:
        return find_nvcc()
    except BuildError as error:
        pytest.skip(str(error))


def check_library(compiled: CompiledModel, target: GpuTarget) -> dict[str, Any]:
    """One fatbin, for the target, with the kernels that the manifest lists; none spills. Returns the manifest."""
    manifest: dict[str, Any] = json.loads((compiled.artefact_dir / "manifest.json").read_text())
    library = (compiled.artefact_dir / "lib.so").read_bytes()
    kernels = {kernel["name"]: kernel for kernel in manifest["kernels"]}
    check_fatbin(library, target.sm or 0, list(kernels))
    assert (manifest["device"], manifest["gpu"], manifest["arch"]) == ("cuda", target.capability, target.arch)
    assert all(kernel["spill_bytes"] == 0 for kernel in kernels.values())
    assert all(kernel["shared_bytes"] <= 48 * 1024 and kernel["occupancy"] >= 0.2 for kernel in kernels.values())
    return manifest


def test_an_artefact_carries_one_fatbin_and_no_kernel_spills(
    nvcc: CudaCompiler, compile_tiny: Callable[..., CompiledModel]
) -> None:
    manifest = check_library(compile_tiny("int4", "rtx-30"), gpu("rtx-30"))
    functions = {kernel["name"].partition("_kernel")[0] for kernel in manifest["kernels"]}
    assert functions == set(manifest["functions"])


@pytest.mark.cuda_compile
@pytest.mark.parametrize("target", [row.name for row in GPU_TARGETS if not row.last_cuda])
def test_every_row_compiles(nvcc: CudaCompiler, compile_tiny: Callable[..., CompiledModel], target: str) -> None:
    check_library(compile_tiny("int4", target), gpu(target))


@pytest.mark.cuda_compile
@pytest.mark.parametrize("quantisation", ["int4", "int8", "f16", "bf16", "f32"])
def test_the_default_model_compiles_in_every_quantisation(nvcc: CudaCompiler, quantisation: str) -> None:
    check_library(compile_model("smollm2", quantisation, "h100"), gpu("h100"))


def test_a_gpu_that_the_toolkit_has_left_behind_is_one_line() -> None:
    compiler = CudaCompiler("/opt/cuda/bin/nvcc", "13.0")
    with pytest.raises(BuildError) as refused:
        compiler.check_compiles_for(gpu("jetson-xavier"))
    assert str(refused.value) == (
        "target jetson-xavier (sm_72) needs CUDA 10.0 to 12.9, /opt/cuda/bin/nvcc is CUDA 13.0; "
        "set CUDA_HOME to such a toolkit"
    )
    with pytest.raises(BuildError, match=r"rtx-50 \(sm_120\) needs CUDA 12\.8 or later, .* is CUDA 12\.2"):
        CudaCompiler("nvcc", "12.2").check_compiles_for(gpu("rtx-50"))


def test_a_missing_nvcc_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("compiler.cuda_toolchain._DEFAULT_FOLDER", str(tmp_path))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BuildError, match=r"no CUDA compiler \(nvcc\) on this machine; install the CUDA toolkit"):
        find_nvcc()


def test_a_library_without_machine_code_is_refused() -> None:
    assert read_fatbins(b"\x7fELF and CUDA source") == []
    with pytest.raises(BuildError, match="should carry 1 kernels for sm_86, it carries none"):
        check_fatbin(b"\x7fELF and CUDA source", 86, ["blocks_kernel"])


def test_rows_cover_every_generation_and_say_what_they_are() -> None:
    assert {row.sm for row in GPU_TARGETS} == {72, 75, 80, 86, 87, 89, 90, 100, 120}
    assert {row.arch for row in GPU_TARGETS} == {"x86_64", "aarch64"}
    assert all(f"sm_{row.sm}" in row.summary for row in GPU_TARGETS)
    assert all(row.limits.memory_bytes_per_s > 1e11 for row in GPU_TARGETS)
    assert "SIMULATED" in SIMULATED_GPU.summary
    assert SIMULATED_GPU.capability == ""


def test_a_gpu_is_found_by_its_compute_capability_and_host() -> None:
    hopper = (find_gpu_target("9.0", arch) for arch in ("x86_64", "aarch64"))
    assert [row.name if row else None for row in hopper] == ["h100", "gh200"]
    assert find_gpu_target("3.5", "x86_64") is None
    assert find_gpu_target("", "x86_64") is None
