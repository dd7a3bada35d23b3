"""Which row of the target table a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.errors import TargetError
from compiler.targets.choice import TARGETS, detect_local_target, find_cpu_target, find_target
from compiler.targets.cpu import BASELINES, CPU_TARGETS


def cpuinfo(folder: Path, flags: frozenset[str]) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {' '.join(sorted(flags))}\n")
    return path


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("row", CPU_TARGETS, ids=lambda row: row.name)
def test_every_cpu_row_runs_more_than_its_baseline_and_has_tiles_that_divide(row) -> None:
    assert find_target(BASELINES[row.arch]).features <= row.features
    assert row.tile_rows[0] >= 2
    assert row.tile_rows[-1] == 1
    assert all(large % small == 0 for large, small in zip(row.tile_rows, row.tile_rows[1:], strict=False))


@pytest.mark.parametrize("name", ["sapphirerapids", "cascadelake", "x86-64-v4", "alderlake", "x86-64-v3", "x86-64-v2"])
def test_a_machine_with_the_features_of_a_row_gets_it(tmp_path: Path, name: str) -> None:
    assert detect_local_target(cpuinfo(tmp_path, find_target(name).features), "x86_64") == name


def test_a_machine_that_fits_no_row_is_told_the_rows(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="x86-64-v3, x86-64-v2"):
        detect_local_target(cpuinfo(tmp_path, frozenset({"sse2"})), "x86_64")


def test_an_unknown_name_is_told_the_rows() -> None:
    with pytest.raises(TargetError, match="unknown target 'z80'; known targets: sapphirerapids, zen4"):
        find_cpu_target("z80")
