"""Which row a name stands for, and which one a machine gets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from compiler.errors import TargetError
from compiler.targets.cpu import BASELINES, CPU_TARGETS
from compiler.targets.gpu import GPU_TARGETS, SIMULATED_GPU, GpuTarget
from compiler.targets.row import CompileTarget, CpuTarget
from mec_platform.domain.hardware import HardwareTarget

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


@dataclass(frozen=True, slots=True)
class TargetChoice:
    """The row that a machine gets, and why.

    `is_fallback` says that no row describes the machine: it gets the safe baseline of its architecture. `also` are the
    other rows that it can run, best first.
    """

    row: CpuTarget
    reason: str
    is_fallback: bool
    also: tuple[CompileTarget, ...]


def choose_target(hardware: HardwareTarget) -> TargetChoice:
    """The best CPU row for a machine: one that names its board, else its cores, else the first that it can run.

    Raises:
        TargetError: no row is for its architecture, or it lacks what the baseline needs.
    """
    baseline = _baseline_of(hardware)
    if not hardware.features:
        return TargetChoice(baseline, f"the features of this machine could not be read; {_safe(baseline)}", True, ())
    runnable = [row for row in CPU_TARGETS if row.arch == hardware.arch and row.features <= hardware.features]
    if baseline not in runnable:
        lacking = ", ".join(sorted(baseline.features - hardware.features))
        raise TargetError(
            f"this {hardware.arch} machine ({hardware.cpu_model}) lacks {lacking}, which even {baseline.name} needs: "
            "it cannot run compiled models; take it for the platform or the gateway, and run nodes elsewhere"
        )
    best, *others = sorted(runnable, key=lambda row: _nearness(row, hardware))
    gpus = [find_gpu_target(gpu.capability, hardware.arch) for gpu in hardware.gpus]
    also = (*(row for row in dict.fromkeys(gpus) if row is not None), *others)
    match _nearness(best, hardware):
        case _Nearness.BOARD:
            return TargetChoice(best, f"it is tuned for {hardware.board}", False, also)
        case _Nearness.CORES:
            return TargetChoice(best, f"it is tuned for {hardware.cpu_model}", False, also)
    if best is baseline:
        return TargetChoice(best, f"no row describes {hardware.cpu_model}; {_safe(best)}", True, also)
    return TargetChoice(best, f"it is the best of those that {hardware.cpu_model} can run", False, also)


def detect_local_target() -> str:
    """Name of the best row for this machine.

    Raises:
        TargetError: no row fits this machine.
    """
    return choose_target(HardwareTarget.detect()).row.name


class _Nearness(IntEnum):
    """How well a row that a machine can run describes it, best first."""

    BOARD = 0
    CORES = 1
    FEATURES = 2


def _nearness(row: CpuTarget, hardware: HardwareTarget) -> _Nearness:
    if hardware.board.startswith(row.machines):
        return _Nearness.BOARD
    if any(core.startswith(row.machines) for core in hardware.cpu_model.split(", ")):
        return _Nearness.CORES
    return _Nearness.FEATURES


def _baseline_of(hardware: HardwareTarget) -> CpuTarget:
    if hardware.arch not in BASELINES:
        raise TargetError(
            f"no target is for {hardware.arch} machines; nodes run on {', '.join(BASELINES)}, "
            "and an artefact for another machine is compiled with: mec compile --target NAME"
        )
    return find_cpu_target(BASELINES[hardware.arch])


def _safe(baseline: CpuTarget) -> str:
    return f"{baseline.name} is the safe baseline of {baseline.arch}"
