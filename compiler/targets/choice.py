"""Which row a name stands for, and which one a machine gets."""

from __future__ import annotations

import platform
from pathlib import Path

from compiler.errors import TargetError
from compiler.targets.cpu import CPU_TARGETS
from compiler.targets.row import CompileTarget, CpuTarget

TARGETS: tuple[CompileTarget, ...] = CPU_TARGETS


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


def find_cpu_target(name: str) -> CpuTarget:
    """The row called `name`, which has to be a CPU.

    Raises:
        TargetError: no such row, or not a CPU's.
    """
    row = find_target(name)
    if not isinstance(row, CpuTarget):
        raise TargetError(f"'{name}' is no CPU target; name one of: {', '.join(row.name for row in CPU_TARGETS)}")
    return row


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
    for row in CPU_TARGETS:
        if row.arch == machine and row.features <= flags and not row.machines:
            return row.name
    known = ", ".join(row.name for row in TARGETS)
    raise TargetError(f"no target fits this {machine} machine; name one to compile for another: {known}")
