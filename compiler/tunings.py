"""Tilings that were found to be faster on this machine, in the content store: `mec compile --tune` keeps them here.

A tuning belongs to a target, a model's dimensions, a quantisation and a machine. Every later compilation for that target
on that machine takes it, and its values are part of the artefact's key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from compiler.models.spec import ArchitectureDims
from compiler.targets.row import TILING, CompileTarget, CpuTarget
from mec_platform.content_store.entries import content_key, write_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.kernel_contract import KERNEL_VERSION

TUNINGS = "tunings"


def tuned_row(row: CompileTarget, dims: ArchitectureDims, quantisation: str, store: ContentStore) -> CompileTarget:
    """`row` with the tiling that was found for it on this machine; `row` itself where none was."""
    if not isinstance(row, CpuTarget):
        return row
    manifest = store.find(TUNINGS, _key(row, dims, quantisation))
    try:
        return row if manifest is None else with_tiling(row, manifest["tiling"])
    except (KeyError, TypeError, ValueError):
        return row


def with_tiling(row: CpuTarget, tiling: dict[str, Any]) -> CpuTarget:
    """`row` with another tiling, as `CpuTarget.tiling` gives it.

    Raises:
        KeyError, TypeError, ValueError: that is no tiling.
    """
    values = {name: tiling[name] for name in TILING}
    values["tile_rows"] = tuple(int(rows) for rows in values["tile_rows"])
    sizes, numbers = values["tile_rows"], [values[name] for name in TILING[1:]]
    cut = all(large % small == 0 and large > small for large, small in pairwise(sizes))
    if len(sizes) < 2 or sizes[-1] != 1 or not cut or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise ValueError(f"no tiling: {tiling}")
    return replace(row, **values)


@contextmanager
def building_tuning(row: CpuTarget, dims: ArchitectureDims, quantisation: str, store: ContentStore) -> Iterator[Path]:
    """A folder of the store to search in and to leave a tuning in with `write_tuning`, in the place of an earlier one.

    One search at a time; where it ends with an exception, or is killed, the earlier tuning stays and the folder goes.
    """
    with store.building(TUNINGS, _key(row, dims, quantisation), anew=True) as fresh:
        assert fresh is not None  # which only an entry that is there would be
        yield fresh


def write_tuning(folder: Path, row: CpuTarget, tuned: CpuTarget, quantisation: str, gain: float) -> None:
    """Fills the folder with the tiling of `tuned` for `row`."""
    facts = {"kind": "tuning", "target": row.name, "quantisation": quantisation, "tiling": tuned.tiling(), "gain": gain}
    write_manifest(folder, facts)


def _key(row: CpuTarget, dims: ArchitectureDims, quantisation: str) -> str:
    machine = HardwareTarget.detect()
    described = [machine.arch, machine.cpu_model, machine.cores, machine.board]
    return content_key(row.name, row.llvm(), dims.as_dict(), quantisation, described, KERNEL_VERSION)
