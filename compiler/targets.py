"""The hardware targets that the compiler knows, one row each. Adding a target is adding a row.

Importable without TVM: an edge node uses it to say what it is. `dot` names how four unsigned bytes times four signed
bytes are summed into 32 bits; every way gives the same integers, so the x86 rows give the same bits.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compiler.errors import TargetError


@dataclass(frozen=True, slots=True)
class CompileTarget:
    """A row: LLVM's names for the CPU, and the /proc/cpuinfo flags that a machine needs to run the result.

    `tile_rows` are the rows that are multiplied at once with 32 columns of weights, largest first, each dividing the one
    before it, down to 1; `tile_queries` is the most query heads at once with a page. Both are what the vector registers
    hold; they change no bit.
    """

    name: str
    arch: str
    mtriple: str
    mcpu: str
    dot: Literal["vpdpbusd", "pmaddubsw", "portable"]
    tile_rows: tuple[int, ...]
    tile_queries: int
    cpu_flags: frozenset[str]

    def llvm(self) -> dict[str, str]:
        """TVM's target description."""
        return {"kind": "llvm", "mtriple": self.mtriple, "mcpu": self.mcpu}


# Best first: `detect_local_target` takes the first row whose flags the machine has.
TARGETS = (
    CompileTarget(
        "x86-avx512-vnni",
        "x86_64",
        "x86_64-linux-gnu",
        "cascadelake",
        "vpdpbusd",
        (8, 4, 2, 1),
        12,
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512_vnni", "fma", "f16c"}),
    ),
    CompileTarget(
        "x86-avx2",
        "x86_64",
        "x86_64-linux-gnu",
        "haswell",
        "pmaddubsw",
        (2, 1),
        4,
        frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"}),
    ),
)


def find_target(name: str) -> CompileTarget:
    """The row called `name`.

    Raises:
        TargetError: no such row.
    """
    for row in TARGETS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in TARGETS)
    raise TargetError(f"unknown target '{name}'; known targets: {known}")


def detect_local_target(cpuinfo: Path = Path("/proc/cpuinfo"), arch: str | None = None) -> str:
    """Name of the best row for this machine, from the kernel's list of CPU flags.

    Raises:
        TargetError: no row fits this machine.
    """
    machine = arch or platform.machine()
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    flags: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            break
    for row in TARGETS:
        if row.arch == machine and row.cpu_flags <= flags:
            return row.name
    known = ", ".join(row.name for row in TARGETS)
    raise TargetError(f"no target fits this {machine} machine; name one to compile for another: {known}")
