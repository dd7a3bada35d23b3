"""The /proc and /sys of several machines, as far as the probe reads them, written under a folder."""

from __future__ import annotations

from pathlib import Path

_SSE = "fpu sse sse2 pni ssse3 cx16 lahf_lm"
_HASWELL = f"{_SSE} sse4_1 sse4_2 popcnt avx avx2 abm bmi1 bmi2 f16c fma movbe xsave"
_SKYLAKE = f"{_HASWELL} avx512f avx512bw avx512cd avx512dq avx512vl"
_ZEN4 = (
    f"{_SKYLAKE} avx512_vnni avx512_bitalg avx512_vbmi2 avx512_vpopcntdq avx512ifma avx512vbmi gfni vaes vpclmulqdq "
    "avx512_bf16 sse4a"
)
_A53 = "fp asimd evtstrm crc32 cpuid"
_A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

# name: architecture, cores, cpuinfo of one core, board, KiB of the data caches, MiB of memory
MACHINES = {
    "raspberry pi 4": (
        "aarch64",
        4,
        {"Features": _A53, "CPU implementer": "0x41", "CPU part": "0xd08"},
        "Raspberry Pi 4 Model B Rev 1.4",
        (32, 1024),
        3791,
    ),
    "raspberry pi 5": (
        "aarch64",
        4,
        {"Features": _A76, "CPU implementer": "0x41", "CPU part": "0xd0b"},
        "Raspberry Pi 5 Model B Rev 1.0",
        (64, 512, 2048),
        8062,
    ),
    "jetson orin": (
        "aarch64",
        12,
        {"Features": f"{_A76} uscat ilrcpc flagm", "CPU implementer": "0x41", "CPU part": "0xd42"},
        "NVIDIA Jetson AGX Orin Developer Kit",
        (64, 256, 2048),
        62840,
    ),
    "jetson xavier": (
        "aarch64",
        8,
        {"Features": "fp asimd aes crc32 atomics fphp asimdhp", "CPU implementer": "0x4e", "CPU part": "0x004"},
        "NVIDIA Jetson AGX Xavier",
        (64, 2048, 4096),
        31920,
    ),
    "graviton 2": (
        "aarch64",
        64,
        {"Features": f"{_A76} ssbs", "CPU implementer": "0x41", "CPU part": "0xd0c"},
        "",
        (64, 1024, 32768),
        253000,
    ),
    "graviton 3": (
        "aarch64",
        64,
        {"Features": f"{_A76} sve i8mm bf16", "CPU implementer": "0x41", "CPU part": "0xd40"},
        "",
        (64, 1024, 32768),
        253000,
    ),
    "unknown arm": ("aarch64", 4, {"Features": _A53, "CPU implementer": "0x51", "CPU part": "0x801"}, "", (32,), 2000),
    "zen 4": ("x86_64", 32, {"model name": "AMD Ryzen 9 7950X 16-Core", "flags": _ZEN4}, "", (32, 1024, 32768), 64000),
    "skylake": ("x86_64", 40, {"model name": "Intel Xeon Gold 6148", "flags": _SKYLAKE}, "", (32, 1024, 28160), 192000),
    "silvermont": (
        "x86_64",
        4,
        {"model name": "Intel Atom E3845", "flags": f"{_SSE} sse4_1 sse4_2 popcnt movbe"},
        "",
        (24, 1024),
        3800,
    ),
    "old atom": ("x86_64", 2, {"model name": "Intel Atom D510", "flags": _SSE}, "", (24, 512), 2000),
    "risc-v": ("riscv64", 4, {"isa": "rv64gc"}, "StarFive VisionFive 2", (32, 2048), 7900),
}


def write_machine(root: Path, name: str) -> tuple[Path, str]:
    """The folder to probe, and the machine's architecture."""
    arch, cores, core, board, caches, memory_mib = MACHINES[name]
    files = {
        "proc/cpuinfo": "\n".join(
            "".join(f"{key}\t: {value}\n" for key, value in {"processor": str(number), **core}.items())
            for number in range(cores)
        ),
        "proc/meminfo": f"MemTotal: {memory_mib * 1024:12} kB\nMemFree: 1 kB\n",
    }
    if board:
        files["proc/device-tree/model"] = board + "\0"
    for index, size in enumerate(caches):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index + bool(index)}"
        kind = "Unified" if index else "Data"
        files |= {f"{folder}/level": f"{index + 1}\n", f"{folder}/type": f"{kind}\n", f"{folder}/size": f"{size}K\n"}
    instructions = "sys/devices/system/cpu/cpu0/cache/index1"
    files |= {f"{instructions}/level": "1\n", f"{instructions}/type": "Instruction\n", f"{instructions}/size": "64K\n"}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root, arch
