"""From CUDA source to machine code, on a machine that needs no GPU: nvcc, and what TVM asks of a driver to load its CUDA part.

TVM's CUDA library is linked to the driver's library, libcuda.so.1. Where no driver is installed, a stand-in of a few lines
takes its place in the process that compiles, and in no other: every function of it says that there is no device. Never
called on a node.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi

from compiler.errors import BuildError
from compiler.targets.gpu import NVCC_OPTIONS, REGISTERS_PER_SM, GpuTarget

# What TVM's CUDA library takes from the driver's library; 100 is CUDA_ERROR_NO_DEVICE.
_DRIVER_FUNCTIONS = (
    "cuDeviceGetName",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuLaunchCooperativeKernel",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuModuleGetFunction",
    "cuModuleGetGlobal",
    "cuModuleGetGlobal_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuTensorMapEncodeTiled",
)
_NO_DEVICE = 100
_DEFAULT_FOLDER = "/usr/local/cuda"
_WARP, _SM_BLOCKS = 32, 16  # 16 blocks an SM at least, on every generation
_REGISTER_UNIT = 256  # registers are given to a warp in units
# Unused variables, and decimals that are no float32, in code that TVM generates.
_SILENT = "-diag-suppress=177,550,1046"


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What ptxas says of one kernel, and `occupancy`: the share of an SM's threads that can be resident with it."""

    name: str
    threads: int
    registers: int
    shared_bytes: int
    spill_bytes: int
    occupancy: float


@dataclass(frozen=True, slots=True)
class CudaCompiler:
    """An nvcc and its release, as "13.0"."""

    path: str
    release: str

    def check_compiles_for(self, target: GpuTarget) -> None:
        """Raises BuildError where this release has not yet, or no longer, a compiler for the target's GPU."""
        last = f" to {target.last_cuda}" if target.last_cuda else " or later"
        too_old = _version(self.release) < _version(target.first_cuda)
        if too_old or (target.last_cuda and _version(self.release) > _version(target.last_cuda)):
            raise BuildError(
                f"target {target.name} (sm_{target.sm}) needs CUDA {target.first_cuda}{last}, {self.path} is CUDA "
                f"{self.release}; set CUDA_HOME to such a toolkit"
            )

    def compile(self, source: str, target: GpuTarget) -> tuple[bytes, list[KernelResources]]:
        """Fatbin with machine code for the target's GPU, and what its kernels take. Raises BuildError where nvcc fails."""
        with tempfile.TemporaryDirectory() as folder:
            code, fatbin = Path(folder, "kernels.cu"), Path(folder, "kernels.fatbin")
            code.write_text(source)
            sm = f"-gencode=arch=compute_{target.sm},code=sm_{target.sm}"
            done = subprocess.run(
                [self.path, "--fatbin", *NVCC_OPTIONS, sm, _SILENT, "-Xptxas=-v", "-o", str(fatbin), str(code)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if "error" in line or "fatal" in line]
                raise BuildError(f"{self.path} failed for {target.name}: {(errors or [done.stderr.strip()[-200:]])[0]}")
            return fatbin.read_bytes(), _read_resources(done.stderr, source, target)


def find_nvcc() -> CudaCompiler:
    """The CUDA compiler: of CUDA_HOME or CUDA_PATH, on the PATH, or at the usual place.

    Raises:
        BuildError: there is none, or it does not run.
    """
    named = [Path(os.environ[name], "bin") for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [*map(str, named), os.environ.get("PATH", ""), f"{_DEFAULT_FOLDER}/bin"]
    found = next((path for folder in folders if (path := shutil.which("nvcc", path=folder))), None)
    if found is None:
        raise BuildError("no CUDA compiler (nvcc) on this machine; install the CUDA toolkit, or set CUDA_HOME to it")
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    release = re.search(r"release (\d+\.\d+)", done.stdout)
    if release is None:
        raise BuildError(f"{found} --version names no release; reinstall the CUDA toolkit")
    return CudaCompiler(found, release[1])


@contextmanager
def cuda_codegen(target: GpuTarget) -> Iterator[list[KernelResources]]:
    """While it holds, `tvm.compile` makes fatbins for `target`; what their kernels take is in the list then.

    Raises:
        BuildError: no nvcc, one that does not compile for the target, or no CUDA libraries for TVM.
    """
    compiler = find_nvcc()
    compiler.check_compiles_for(target)
    _load_cuda_part(compiler)
    resources: list[KernelResources] = []
    name = "tvm_callback_cuda_compile"
    usual = tvm_ffi.get_global_func(name, allow_missing=True)

    def compile_source(source: str) -> bytes:
        fatbin, found = compiler.compile(source, target)
        resources.extend(found)
        return fatbin

    tvm_ffi.register_global_func(name, compile_source, override=True)
    try:
        yield resources
    finally:
        if usual is not None:
            tvm_ffi.register_global_func(name, usual, override=True)


@functools.cache
def _load_cuda_part(compiler: CudaCompiler) -> None:
    """TVM's CUDA library, with the driver's library or its stand-in before it."""
    if tvm_ffi.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    library = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
    except OSError:
        _load_stand_in(compiler)
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise BuildError(
            f"TVM's CUDA library cannot be loaded ({error}); install the CUDA toolkit's runtime"
        ) from error


def _load_stand_in(compiler: CudaCompiler) -> None:
    """nvcc brings a C compiler along, so that none is looked for here."""
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder, "driver.c"), Path(folder, "libcuda.so.1")
        code.write_text("".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in _DRIVER_FUNCTIONS))
        options = ["-shared", "-Xcompiler=-fPIC", "-cudart=none", "-Xlinker=-soname=libcuda.so.1"]
        done = subprocess.run(
            [compiler.path, *options, "-o", str(library), str(code)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"{compiler.path} finds no C compiler ({done.stderr.strip()[-200:]}); install gcc")
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _version(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _read_resources(report: str, source: str, target: GpuTarget) -> list[KernelResources]:
    """Of every kernel, in the order of its source."""
    threads = {name: int(count) for count, name in re.findall(r"__launch_bounds__\((\d+)\) (\w+)\([^;]*;", source)}
    found = {}
    for name, facts in re.findall(
        r"Compiling entry function '(\w+)'.*?\n(.*?)(?=Compiling entry|\Z)", report, re.DOTALL
    ):
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", facts)
        registers, shared = re.search(r"Used (\d+) registers", facts), re.search(r"(\d+) bytes smem", facts)
        if spills is None or registers is None:
            raise BuildError(f"ptxas said nothing of kernel {name}; another release of CUDA may")
        taken, held = int(registers[1]), int(shared[1]) if shared else 0
        found[name] = KernelResources(
            name=name,
            threads=threads[name],
            registers=taken,
            shared_bytes=held,
            spill_bytes=int(spills[1]) + int(spills[2]),
            occupancy=_occupancy(threads[name], taken, held, target),
        )
    return [found[name] for name in threads if name in found]


def _occupancy(threads: int, registers: int, shared_bytes: int, target: GpuTarget) -> float:
    """Blocks that fit an SM by threads, registers and shared memory, as a share of its threads."""
    warps = -(-threads // _WARP)
    warp_registers = -(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    blocks = min(target.sm_threads // (warps * _WARP), REGISTERS_PER_SM // (warp_registers * warps), _SM_BLOCKS)
    if shared_bytes:
        blocks = min(blocks, target.sm_shared_bytes // (shared_bytes + 1024))  # the system takes 1 KiB of each
    return blocks * warps * _WARP / target.sm_threads
