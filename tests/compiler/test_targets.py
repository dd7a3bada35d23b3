"""The rows of the target table, and which one a machine gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compiler.errors import TargetError
from compiler.targets.choice import TARGETS, choose_target, find_cpu_target, find_target
from compiler.targets.cpu import BASELINES, CPU_TARGETS
from compiler.targets.row import CpuTarget
from mec_platform.domain.hardware import Gpu, HardwareTarget
from tests.domain.machines import write_machine


def machine(arch: str, features: frozenset[str], gpus: tuple[Gpu, ...] = ()) -> HardwareTarget:
    return HardwareTarget(arch, "a CPU", "", 4, 4, features=features, gpus=gpus)


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("row", CPU_TARGETS, ids=lambda row: row.name)
def test_every_cpu_row_needs_more_than_its_baseline_and_has_tiles_that_divide(row: CpuTarget) -> None:
    assert find_target(BASELINES[row.arch]).features <= row.features
    assert row.tile_rows[0] >= 2
    assert row.tile_rows[-1] == 1
    assert all(large % small == 0 for large, small in zip(row.tile_rows, row.tile_rows[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("raspberry pi 4", "raspberry-pi-4", "it is tuned for Raspberry Pi 4 Model B Rev 1.4"),
        ("raspberry pi 5", "raspberry-pi-5", "it is tuned for Raspberry Pi 5 Model B Rev 1.0"),
        ("jetson orin", "cortex-a78", "it is tuned for Cortex-A78AE"),
        ("jetson xavier", "carmel", "it is tuned for Carmel"),
        ("graviton 2", "neoverse-n1", "it is tuned for Neoverse-N1"),
        ("graviton 3", "neoverse-v2", "it is the best of those that Neoverse-V1 can run"),
        ("zen 4", "zen4", "it is tuned for AMD Ryzen 9 7950X 16-Core"),
        ("skylake", "x86-64-v4", "it is the best of those that Intel Xeon Gold 6148 can run"),
    ],
)
def test_a_machine_gets_the_row_that_describes_it(tmp_path: Path, name: str, row: str, reason: str) -> None:
    choice = choose_target(HardwareTarget.detect(*write_machine(tmp_path, name)))
    assert (choice.row.name, choice.reason, choice.is_fallback) == (row, reason, False)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        (
            "unknown arm",
            "cortex-a53",
            "no row describes ARM core 0x51/0x801; cortex-a53 is the safe baseline of aarch64",
        ),
        ("silvermont", "x86-64-v2", "no row describes Intel Atom E3845; x86-64-v2 is the safe baseline of x86_64"),
    ],
)
def test_a_machine_that_no_row_describes_gets_the_baseline(tmp_path: Path, name: str, row: str, reason: str) -> None:
    choice = choose_target(HardwareTarget.detect(*write_machine(tmp_path, name)))
    assert (choice.row.name, choice.reason, choice.is_fallback) == (row, reason, True)


def test_a_machine_that_cannot_be_read_gets_the_baseline(tmp_path: Path) -> None:
    choice = choose_target(HardwareTarget.detect(tmp_path, "aarch64"))
    assert (choice.row.name, choice.is_fallback, choice.also) == ("cortex-a53", True, ())
    assert "could not be read" in choice.reason


def test_a_machine_below_the_baseline_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"\(Intel Atom D510\) lacks popcnt, sse4_1, sse4_2, which even x86-64-v2 needs"
    ):
        choose_target(HardwareTarget.detect(*write_machine(tmp_path, "old atom")))


def test_an_unknown_architecture_is_told_which_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no target is for riscv64 machines; nodes run on x86_64, aarch64"):
        choose_target(HardwareTarget.detect(*write_machine(tmp_path, "risc-v")))


@pytest.mark.parametrize("name", ["sapphirerapids", "cascadelake", "x86-64-v4", "alderlake", "x86-64-v3"])
def test_a_machine_with_the_features_of_a_row_gets_it_and_runs_the_lesser_ones(name: str) -> None:
    choice = choose_target(machine("x86_64", find_target(name).features))
    assert choice.row.name == name
    assert choice.also[-1].name == "x86-64-v2"


def test_rows_of_the_machines_gpus_are_among_those_it_can_run() -> None:
    choice = choose_target(machine("x86_64", find_target("x86-64-v3").features, (Gpu("A2000", "8.6", 12 << 30),) * 2))
    assert [row.kind for row in choice.also] == ["gpu", "cpu"]
    assert choice.row.kind == "cpu"


def test_the_first_of_two_kinds_of_cores_that_a_row_names_counts() -> None:
    rk3588 = replace(machine("aarch64", find_target("cortex-a76").features), cpu_model="Cortex-A55, Cortex-A76")
    assert choose_target(rk3588).row.name == "cortex-a76"


def test_an_unknown_name_is_told_the_rows() -> None:
    with pytest.raises(TargetError, match="unknown target 'z80'; known targets: sapphirerapids, zen4"):
        find_cpu_target("z80")
