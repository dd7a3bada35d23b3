"""How busy this machine and this process are, from Linux's /proc and /sys. What a machine does not show stays absent.

Sources: proc(5) for CPU times and memory; the kernel's sysfs documentation for /sys/class/thermal (milli-degrees),
/sys/class/hwmon (temp*_input, milli-degrees) and /sys/class/powercap (RAPL's energy_uj, which wraps at max_energy_range_uj).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mec_platform.rpc.v1 import control_plane_pb2

COLDEST_C, HOTTEST_C = -40.0, 150.0
"""Sensors that are not connected show what no machine survives."""


@dataclass(frozen=True, slots=True)
class _Counters:
    """Counts since boot (the machine's), since its start (the process's); None where they are not shown."""

    at_s: float
    cpu_busy: int | None = None
    cpu_total: int | None = None
    process_s: float = 0.0
    energy_j: tuple[tuple[str, float, float], ...] = ()  # of each package, and where it wraps


class LoadMeter:
    """`read` tells shares and power since it was asked last. `root` is where /proc and /sys are."""

    def __init__(
        self,
        root: Path = Path("/"),
        clock_s: Callable[[], float] = time.monotonic,
        process_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._root = root
        self._clock_s = clock_s
        self._process_s = process_s
        self._before = self._count()

    def read(self) -> control_plane_pb2.MachineLoad:
        """The load now."""
        before, now = self._before, self._count()
        self._before = now
        load = control_plane_pb2.MachineLoad(temperature_c=self._temperature_c(), power_w=_power_w(before, now))
        if before.cpu_busy is not None and now.cpu_busy is not None and now.cpu_total and before.cpu_total is not None:
            passed = now.cpu_total - before.cpu_total
            if passed > 0:
                load.machine_cpu_share = min(max((now.cpu_busy - before.cpu_busy) / passed, 0.0), 1.0)
        passed_s = now.at_s - before.at_s
        if passed_s > 0:
            load.process_cpu_cores = max(now.process_s - before.process_s, 0.0) / passed_s
        memory = self._memory()
        if "MemTotal" in memory and "MemAvailable" in memory:
            load.memory_free_bytes = memory["MemAvailable"]
            load.memory_used_bytes = memory["MemTotal"] - memory["MemAvailable"]
        return load

    def _count(self) -> _Counters:
        busy, total = self._cpu_times()
        return _Counters(self._clock_s(), busy, total, self._process_s(), tuple(self._energies()))

    def _cpu_times(self) -> tuple[int | None, int | None]:
        """Ticks in which cores worked, and all ticks: user nice system idle iowait irq softirq steal."""
        first = _text(self._root / "proc/stat").partition("\n")[0].split()
        if len(first) < 6 or first[0] != "cpu":
            return None, None
        ticks = [int(field) for field in first[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def _memory(self) -> dict[str, int]:
        lines = (line.split() for line in _text(self._root / "proc/meminfo").splitlines())
        return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}

    def _temperature_c(self) -> float | None:
        """The hottest sensor."""
        files = [
            *self._root.glob("sys/class/thermal/thermal_zone*/temp"),
            *self._root.glob("sys/class/hwmon/hwmon*/temp*_input"),
        ]
        found = [value / 1e3 for value in map(_number, files) if value is not None]
        return max((c for c in found if COLDEST_C < c < HOTTEST_C), default=None)

    def _energies(self) -> Iterator[tuple[str, float, float]]:
        """Joules of each processor package; its parts (cores, memory) are zones below it and would count twice."""
        for zone in sorted(self._root.glob("sys/class/powercap/*-rapl:*")):
            if zone.name.count(":") == 1 and _text(zone / "name").startswith("package"):
                energy, wraps = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
                if energy is not None:
                    yield zone.name, energy / 1e6, (wraps or 0) / 1e6


def _power_w(before: _Counters, now: _Counters) -> float | None:
    passed_s = now.at_s - before.at_s
    earlier = {zone: energy_j for zone, energy_j, _ in before.energy_j}
    if passed_s <= 0 or not now.energy_j or any(zone not in earlier for zone, _, _ in now.energy_j):
        return None
    spent = [
        (energy_j - earlier[zone]) % wraps_j if wraps_j else energy_j - earlier[zone]
        for zone, energy_j, wraps_j in now.energy_j
    ]
    return max(sum(spent), 0.0) / passed_s


def _text(path: Path) -> str:
    """Empty where there is no such file or it may not be read: RAPL's counters are root's on many machines."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
