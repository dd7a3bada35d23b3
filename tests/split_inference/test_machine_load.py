"""Reading a machine's load from made-up /proc and /sys: what is there is told, what is not stays absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mec_apps.split_inference.machine_load import LoadMeter


class Machine:
    """A root with files, and clocks that a test moves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0
        self.process_s = 1.0

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def meter(self) -> LoadMeter:
        return LoadMeter(self.root, lambda: self.now_s, lambda: self.process_s)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    return Machine(tmp_path)


def test_a_machine_that_shows_nothing_has_nothing_but_its_process(machine: Machine) -> None:
    meter = machine.meter()
    machine.now_s, machine.process_s = 102.0, 4.0
    load = meter.read()
    assert load.process_cpu_cores == 1.5
    shown = {field.name for field, _ in load.ListFields()}
    assert shown == {"process_cpu_cores"}


def test_cpu_share_and_memory_are_those_since_the_last_reading(machine: Machine) -> None:
    machine.write("proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8\n")
    machine.write("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  400 kB\nHugePages_Total: 0\n")
    meter = machine.meter()
    machine.now_s += 1
    machine.write("proc/stat", "cpu  150 0 110 720 110 5 5 0 0 0\n")
    load = meter.read()
    assert load.machine_cpu_share == pytest.approx(70 / 100)
    assert (load.memory_used_bytes, load.memory_free_bytes) == (600 * 1024, 400 * 1024)
    machine.now_s += 1
    assert not meter.read().HasField("machine_cpu_share")  # no tick has passed


def test_the_hottest_sensor_counts_and_those_that_are_not_connected_do_not(machine: Machine) -> None:
    machine.write("sys/class/thermal/thermal_zone0/temp", "41000\n")
    machine.write("sys/class/thermal/thermal_zone1/temp", "-273200\n")
    machine.write("sys/class/hwmon/hwmon2/temp1_input", "58500\n")
    machine.write("sys/class/hwmon/hwmon2/temp2_input", "255000\n")
    machine.write("sys/class/hwmon/hwmon2/temp3_input", "?\n")
    assert machine.meter().read().temperature_c == 58.5


def test_power_is_the_packages_energy_over_time_and_its_counter_wraps(machine: Machine) -> None:
    def energy(zone: str, name: str, microjoules: int) -> None:
        machine.write(f"sys/class/powercap/{zone}/name", name + "\n")
        machine.write(f"sys/class/powercap/{zone}/energy_uj", f"{microjoules}\n")
        machine.write(f"sys/class/powercap/{zone}/max_energy_range_uj", "100000000\n")

    energy("intel-rapl:0", "package-0", 99_000_000)
    energy("intel-rapl:0:0", "core", 5_000_000)
    energy("intel-rapl:1", "package-1", 10_000_000)
    meter = machine.meter()
    assert not meter.read().HasField("power_w")  # no time has passed
    machine.now_s += 2
    energy("intel-rapl:0", "package-0", 9_000_000)
    energy("intel-rapl:0:0", "core", 50_000_000)
    energy("intel-rapl:1", "package-1", 20_000_000)
    assert meter.read().power_w == pytest.approx(10.0)
