"""Which row a name stands for, and which one a machine gets."""

from __future__ import annotations

import platform
from pathlib import Path

from compiler.errors import TargetError
from compiler.targets.cpu import CPU_TARGETS
from compiler.targets.gpu import GPU_TARGETS, SIMULATED_GPU, GpuTarget
from compiler.targets.row import CompileTarget, CpuTarget

TARGETS: tuple[CompileTarget, ...] = (*CPU_TARGETS, *GPU_TARGETS, SIMULATED_GPU)


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
    return require_cpu(find_target(name))


def require_cpu(row: CompileTarget) -> CpuTarget:
    """`row`, which has to be a CPU. Raises TargetError where it is not."""
    if not isinstance(row, CpuTarget):
        raise TargetError(f"'{row.name}' is no CPU target; name one of: {', '.join(cpu.name for cpu in CPU_TARGETS)}")
    return row


def find_gpu_target(capability: str, arch: str) -> GpuTarget | None:
    """The first row for a GPU of this compute capability ("8.6") beside a host of this architecture, or None."""
    rows = (row for row in GPU_TARGETS if row.capability == capability and row.arch == arch)
    return next(rows, None)


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
