"""Reads what a machine is from its kernel, and its GPUs from NVIDIA's driver: the counterpart of `hardware`.

The one module of the domain with input and output, because platform, nodes and compiler must all see the same machine,
and share nothing but the domain. It reads files and asks the driver; it decides nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from mec_platform.domain.hardware import Gpu, HardwareTarget

_AT_HWCAP, _AT_HWCAP2 = 16, 26  # getauxval(3)
# Names of the bits, lowest first, as the kernel prints them ("HWCAP" of Linux's ELF hwcaps for arm64).
_HWCAP = (  # noqa: SIM905
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 "
    "asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
).split()
_HWCAP2 = (  # noqa: SIM905
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh "
    "rng bti mte"
).split()
# ARM cores have numbers instead of names: (implementer, part) of the main ID register.
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x004): "Carmel",
    **{(0x61, part): "Apple M1" for part in range(0x22, 0x2A)},
    **{(0x61, part): "Apple M2" for part in range(0x32, 0x3A)},
}
_NVML = "libnvidia-ml.so.1"


def probe(root: Path, arch: str | None = None) -> HardwareTarget:
    """The machine whose /proc and /sys lie under `root`; GPUs only where that is this machine. See HardwareTarget.detect."""
    is_here = root == Path("/")
    cores = _read_cores(_read(root / "proc/cpuinfo"))
    count = len(cores) or os.cpu_count() or 1
    arch = arch or platform.machine()
    listed = frozenset(
        word for key in ("flags", "Features") for word in (cores[0].get(key, "").split() if cores else ())
    )
    features = _auxiliary_features() if is_here and arch == "aarch64" else frozenset()
    return HardwareTarget(
        arch=arch,
        cpu_model=_name_cpu(cores, arch),
        compile_target="",
        cores=count,
        threads=count,
        board=_read(root / "proc/device-tree/model").rstrip("\0\n"),
        features=features or listed,
        cache_bytes=_read_caches(root / "sys/devices/system/cpu/cpu0/cache"),
        memory_bytes=_read_memory(_read(root / "proc/meminfo")),
        gpus=probe_gpus() if is_here else (),
    )


def probe_gpus(library: str = _NVML) -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's management library reports; none where it is not installed or finds no driver."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    count = ctypes.c_uint()
    found = []
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
        found = [_describe_gpu(nvml, index) for index in range(count.value)]
    nvml.nvmlShutdown()
    return tuple(gpu for gpu in found if gpu is not None)


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _describe_gpu(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    """One GPU; None where the driver answers with an error, as for one that fell off its bus."""
    handle, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _NvmlMemory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
        return None
    failed = [
        nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name))),
        nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)),
        nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)),
    ]
    if any(failed):
        return None
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.total)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_cores(cpuinfo: str) -> list[dict[str, str]]:
    """What /proc/cpuinfo says of every core."""
    cores: list[dict[str, str]] = []
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "processor":
            cores.append({})
        if cores:
            cores[-1][key.strip()] = value.strip()
    return cores


def _name_cpu(cores: list[dict[str, str]], arch: str) -> str:
    """The processor's name; of one with several kinds of cores, all of them."""
    parts = [_arm_core(core) for core in cores] if arch == "aarch64" else [core.get("model name", "") for core in cores]
    return ", ".join(dict.fromkeys(part for part in parts if part)) or arch


def _arm_core(core: dict[str, str]) -> str:
    implementer, part = core.get("CPU implementer", ""), core.get("CPU part", "")
    try:
        number = (int(implementer, 16), int(part, 16))
    except ValueError:
        return ""
    return _ARM_CORES.get(number, f"ARM core {implementer}/{part}")


def _auxiliary_features() -> frozenset[str]:
    """What the kernel told this process when it started it: true also under an emulator, whose /proc is the host's."""
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return frozenset()
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    bits = ((_HWCAP, getauxval(_AT_HWCAP)), (_HWCAP2, getauxval(_AT_HWCAP2)))
    return frozenset(name for names, word in bits for bit, name in enumerate(names) if word >> bit & 1)


def _read_caches(folder: Path) -> tuple[int, ...]:
    """Bytes of the data caches, from level 1."""
    sizes: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name).strip() for name in ("level", "type", "size"))
        if kind in ("Data", "Unified") and level.isdigit() and size[:-1].isdigit() and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) * 1024
    return tuple(sizes[level] for level in sorted(sizes))


def _read_memory(meminfo: str) -> int:
    for line in meminfo.splitlines():
        key, _, value = line.partition(":")
        amount = value.split()
        if key == "MemTotal" and amount and amount[0].isdigit():
            return int(amount[0]) * 1024
    return 0
