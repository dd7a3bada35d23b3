"""Probing machines: written trees of /proc and /sys, this machine itself, and a stand-in for NVIDIA's library."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from mec_platform.domain.hardware import Gpu, HardwareTarget
from mec_platform.domain.hardware_probe import probe_gpus
from mec_platform.rpc.convert import hardware_from_message, hardware_to_message
from tests.domain.machines import write_machine


def test_a_board_is_read_with_its_cores_caches_and_memory(tmp_path: Path) -> None:
    pi = HardwareTarget.detect(*write_machine(tmp_path, "raspberry pi 5"))
    assert (pi.arch, pi.cpu_model, pi.board, pi.cores) == ("aarch64", "Cortex-A76", "Raspberry Pi 5 Model B Rev 1.0", 4)
    assert {"asimd", "asimddp"} <= pi.features
    assert pi.cache_bytes == (64 << 10, 512 << 10, 2048 << 10)
    assert pi.memory_bytes == 8062 << 20
    assert (pi.compile_target, pi.threads, pi.gpus) == ("", 4, ())


def test_cores_of_several_kinds_are_all_named(tmp_path: Path) -> None:
    root, arch = write_machine(tmp_path, "raspberry pi 5")
    cpuinfo = root / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("0xd0b", "0xd05", 2))
    assert HardwareTarget.detect(root, arch).cpu_model == "Cortex-A55, Cortex-A76"


def test_a_core_without_a_name_keeps_its_numbers(tmp_path: Path) -> None:
    assert HardwareTarget.detect(*write_machine(tmp_path, "unknown arm")).cpu_model == "ARM core 0x51/0x801"


def test_an_empty_tree_gives_empty_facts(tmp_path: Path) -> None:
    found = HardwareTarget.detect(tmp_path, "x86_64")
    assert (found.cpu_model, found.features, found.cache_bytes, found.memory_bytes) == ("x86_64", frozenset(), (), 0)
    assert found.cores >= 1


def test_this_machine_is_probed() -> None:
    here = HardwareTarget.detect()
    assert here.arch == platform.machine()
    assert here.features
    assert here.memory_bytes > 1 << 28


def test_hardware_survives_the_wire(tmp_path: Path) -> None:
    found = HardwareTarget.detect(*write_machine(tmp_path, "zen 4"))
    whole = HardwareTarget(
        **{name: getattr(found, name) for name in ("arch", "cpu_model", "cores", "threads", "features", "cache_bytes")},
        compile_target="zen4",
        board="a board",
        memory_bytes=found.memory_bytes,
        gpus=(Gpu("NVIDIA L4", "8.9", 24 << 30),),
    )
    assert hardware_from_message(hardware_to_message(whole)) == whole


# Two GPUs, of which the driver has lost the second.
_NVML = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return STATUS; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(1ul + index); return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { strncpy(name, "NVIDIA RTX A2000", length); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    if (device == (void *)2ul) return 15;
    *major = 8; *minor = 6; return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory *found) { found->total = 12ull << 30; return 0; }
"""


def compile_nvml(folder: Path, status: int) -> str:
    (folder / "nvml.c").write_text(_NVML)
    library = folder / "libnvidia-ml.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DSTATUS={status}", "-o", str(library), str(folder / "nvml.c")], check=True
    )
    return str(library)


def test_gpus_are_what_the_drivers_library_reports(tmp_path: Path) -> None:
    assert probe_gpus(compile_nvml(tmp_path, 0)) == (Gpu("NVIDIA RTX A2000", "8.6", 12 << 30),)


@pytest.mark.parametrize("what", ["no library", "no driver"])
def test_without_a_driver_there_are_no_gpus(tmp_path: Path, what: str) -> None:
    library = compile_nvml(tmp_path, 9) if what == "no driver" else str(tmp_path / "absent.so")
    assert probe_gpus(library) == ()
