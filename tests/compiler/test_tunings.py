"""Tilings: they change no bit, what was found is taken by later compilations, and what is none is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.build import artefact_key
from compiler.kernels import text
from compiler.kernels.linear import weight_format
from compiler.targets.choice import detect_local_target, find_cpu_target, find_target
from compiler.targets.row import CpuTarget
from compiler.tunings import TUNINGS, building_tuning, tuned_row, with_tiling, write_tuning
from mec_platform.content_store.store import ContentStore
from tests.compiler.kernel_calls import activation_format, aligned, aligned_zeros, compile_function, small_dims

ROW = find_cpu_target(detect_local_target())
DIMS = small_dims(hidden=64, vocab=64)
ROWS = 27


def logits(row: Any) -> np.ndarray:
    """27 rows, which go through tiles of every size and past every threshold, times an int4 matrix."""
    random, weights, acts = np.random.default_rng(5), weight_format("int4", row), activation_format(DIMS, True)
    hidden = aligned(random.normal(size=(ROWS, 64)).astype(np.float32))
    q = aligned(random.integers(0, 2**32, (1, *weights.q_shape(64, 64)), np.uint32))
    s = aligned(random.normal(size=(1, *weights.s_shape(64, 64))).astype(np.float16))
    out = aligned_zeros((ROWS, 64), np.float32)
    scratch = [aligned_zeros((ROWS, acts.values_stride(64)), np.int8), aligned_zeros((ROWS, 4), np.float32)]
    call = compile_function(text.head_function(DIMS, weights, acts), row)
    call(hidden, 1, aligned(np.ones((1, 64), np.float32)), q, s, *scratch, out)
    return out


def keep(tuned: CpuTarget, store: ContentStore) -> None:
    with building_tuning(ROW, DIMS, "int4", store) as folder:
        write_tuning(folder, ROW, tuned, "int4", 1.1)


@pytest.mark.slow
def test_no_tiling_changes_a_bit() -> None:
    expected = logits(ROW)
    assert np.abs(expected).max() > 0
    another = replace(ROW, tile_rows=(6, 3, 1), prefetch_groups=2, prefetch_rows=16, unpack_tiles=1)
    assert logits(another).tobytes() == expected.tobytes()


def test_a_saved_tuning_is_taken_for_its_target_dimensions_and_quantisation_only(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    found = replace(ROW, tile_rows=(6, 3, 1), prefetch_groups=16)
    assert tuned_row(ROW, DIMS, "int4", store) is ROW
    keep(found, store)
    assert tuned_row(ROW, DIMS, "int4", store) == found
    assert tuned_row(ROW, DIMS, "int8", store) is ROW
    assert tuned_row(ROW, small_dims(hidden=96), "int4", store) is ROW
    another = find_cpu_target("cortex-a76")
    assert tuned_row(another, DIMS, "int4", store) is another
    gpu = find_target("a100")
    assert tuned_row(gpu, DIMS, "int4", store) is gpu


def test_a_search_that_fails_leaves_the_earlier_tuning_and_nothing_else(tmp_path: Path) -> None:
    store, found = ContentStore(tmp_path), replace(ROW, prefetch_groups=16)
    keep(found, store)

    def fail() -> None:
        with building_tuning(ROW, DIMS, "int4", store) as folder:
            (folder / "workshop").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert tuned_row(ROW, DIMS, "int4", store) == found
    (entry,) = store.entries(TUNINGS)
    assert [path for path in entry.folder.parent.iterdir() if path.is_dir()] == [entry.folder]


def test_a_tuning_is_part_of_the_key_of_an_artefact() -> None:
    assert artefact_key(DIMS, "int4", ROW) != artefact_key(DIMS, "int4", replace(ROW, prefetch_groups=16))


def test_a_damaged_tuning_counts_as_none(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    keep(ROW, store)
    (entry,) = store.entries(TUNINGS)
    manifest = entry.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"prefetch_rows": ', '"prefetch_rows": -'))
    assert tuned_row(ROW, DIMS, "int4", store) is ROW


@pytest.mark.parametrize("sizes", [[], [1], [8, 3, 1], [4, 2], [2, 4, 1]])
def test_tiles_that_do_not_divide_each_other_down_to_one_row_are_no_tiling(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="no tiling"):
        with_tiling(ROW, {**ROW.tiling(), "tile_rows": sizes})
