"""Which row of the target table a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.errors import TargetError
from compiler.targets.choice import detect_local_target, find_target
from compiler.targets.cpu import TARGETS


def cpuinfo(folder: Path, flags: set[str]) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {' '.join(sorted(flags))}\n")
    return path


def test_a_machine_with_vnni_gets_the_vnni_row(tmp_path: Path) -> None:
    flags = set().union(*(row.cpu_flags for row in TARGETS if row.arch == "x86_64"))
    assert detect_local_target(cpuinfo(tmp_path, flags), "x86_64") == "x86-avx512-vnni"


def test_a_machine_without_avx512_gets_the_avx2_row(tmp_path: Path) -> None:
    flags = set(find_target("x86-avx2").cpu_flags)
    assert detect_local_target(cpuinfo(tmp_path, flags), "x86_64") == "x86-avx2"


def test_a_machine_that_fits_no_row_is_told_the_rows(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="x86-avx512-vnni, x86-avx2"):
        detect_local_target(cpuinfo(tmp_path, {"sse2"}), "x86_64")


def test_an_unknown_name_is_told_the_rows() -> None:
    with pytest.raises(TargetError, match="unknown target 'z80'; known targets: x86-avx512-vnni, x86-avx2"):
        find_target("z80")
