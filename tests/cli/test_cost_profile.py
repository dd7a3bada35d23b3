"""`mec profile --save` and `--analytical`: what is measured, how it is fitted and judged, and where it is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.build import CompiledModel as CompiledDirs
from compiler.targets.choice import find_target
from mec_apps.cli.profile.analytical import analytical_profile
from mec_apps.cli.profile.fit import fit_profile, judge, largest_error, least_squares
from mec_apps.cli.profile.sweep import Point, Sweeper, sweep_points
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.saved_profile import find_profile, profile_key, save_profile
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import Batch, CostProfile, RowCost

TILES = (8, 4, 2, 1)
PROFILE = CostProfile(
    source="measured",
    tile_rows=TILES,
    block=RowCost(2e-5, (2.4e-4, 1.2e-4, 7e-5, 4e-5)),
    own_position_s=5e-8,
    shared_position_s=1.5e-8,
    head=RowCost(3e-4, (1.6e-3, 8e-4, 4e-4, 2e-4)),
    rms_error=0.0,
)
POINTS = sweep_points(2048, 16_384, quick=False)


def times(of: CostProfile) -> dict[Point, float]:
    return {judged.point: judged.predicted_s for judged in judge(of, dict.fromkeys(POINTS, 1.0))}


def test_held_out_points_are_others_than_those_of_the_fit_and_inside_their_range() -> None:
    seen = {replace(p, held_out=False) for p in POINTS if not p.held_out}
    held_out = {replace(p, held_out=False) for p in POINTS if p.held_out}
    assert len(seen) + len(held_out) == len(POINTS)
    assert not seen & held_out
    for work in ("decode", "prompt", "head"):
        rows = [p.rows for p in seen if p.work == work]
        ends = [p.context for p in seen if p.work == work]
        for point in (p for p in held_out if p.work == work):
            assert min(rows) < point.rows < max(rows)
            assert min(ends) <= point.context <= max(ends)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("context", [40, 512, 2048])
def test_no_point_needs_more_positions_than_there_are(context: int, quick: bool) -> None:
    for point in sweep_points(context, 4096, quick=quick):
        assert point.context + (point.rows if point.work == "prompt" else 1) <= context
        assert point.work != "decode" or point.rows * (point.context + 1) <= 4096


def test_the_fit_finds_the_coefficients_that_made_the_times() -> None:
    found = fit_profile(times(PROFILE), TILES)
    assert found.own_position_s == pytest.approx(PROFILE.own_position_s)
    assert found.shared_position_s == pytest.approx(PROFILE.shared_position_s)
    assert found.block.tile_s == pytest.approx(PROFILE.block.tile_s)
    assert found.head.call_s == pytest.approx(PROFILE.head.call_s)
    assert found.rms_error == pytest.approx(0, abs=1e-9)


def test_times_that_are_a_little_off_are_predicted_within_the_bound_of_their_noise() -> None:
    noise = random.Random(1)
    noisy = {point: seconds * noise.uniform(0.95, 1.05) for point, seconds in times(PROFILE).items()}
    found = fit_profile(noisy, TILES)
    assert largest_error(judge(found, noisy)) < 0.1
    assert 0 < found.rms_error < 0.05


def test_a_held_out_point_that_is_far_off_shows_in_the_verdict() -> None:
    measured = times(PROFILE)
    odd = next(point for point in measured if point.held_out)
    measured[odd] *= 2
    assert largest_error(judge(fit_profile(measured, TILES), measured)) == pytest.approx(0.5, abs=0.01)


def test_what_would_be_negative_is_zero_and_the_rest_is_solved_anew() -> None:
    terms = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert least_squares(terms, np.array([3.0, 2.0, 1.0])) == pytest.approx([2.0, 0.0])
    assert least_squares(terms, np.array([3.0, 5.0, 7.0])) == pytest.approx([1.0, 2.0])


@pytest.mark.slow
def test_every_kind_of_point_is_timed(compiled_model_dirs: CompiledDirs) -> None:
    sweeper = Sweeper(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, threads=1)
    points = (Point("decode", 3, 100), Point("prompt", 16, 100), Point("head", 2, held_out=True))
    seen: list[tuple[int, int]] = []
    sweep = sweeper.measure(points, 2, lambda done, total: seen.append((done, total)))
    assert sweep.seconds.keys() == set(points)
    assert all(seconds > 0 for seconds in sweep.seconds.values())
    assert sweep.spread >= 0
    assert sweep.drift > -1
    assert len(sweep.reference_s) == 3
    assert [done for done, _ in seen] == [*range(6), 1]
    assert seen[-1] == (1, 1)


@pytest.mark.slow
def test_a_faster_target_has_a_shorter_analytical_profile(compiled_model_dirs: CompiledDirs) -> None:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    four, five = (analytical_profile(package, find_target(f"raspberry-pi-{n}"), threads=4) for n in (4, 5))
    assert four.source == five.source == "analytical"
    for batch in (Batch(1), Batch(8, own_positions=4000)):
        assert five.block_s(batch) < four.block_s(batch)
    assert five.head_s(1) < four.head_s(1)
    alone = analytical_profile(package, find_target("raspberry-pi-5"), threads=1)
    assert alone.block.call_s == five.block.call_s  # the memory is the machine's
    assert alone.block.tile_s[0] == pytest.approx(4 * five.block.tile_s[0])


@pytest.mark.slow
def test_a_saved_profile_is_found_by_its_own_artefact_machine_and_threads(
    compiled_model_dirs: CompiledDirs, tmp_path: Path
) -> None:
    store, machine, artefact = ContentStore(tmp_path), read_machine(), compiled_model_dirs.artefact_dir
    key = profile_key(artefact, machine, threads=2)
    assert find_profile(store, key, now_s=1000.0) is None
    save_profile(store, key, PROFILE, 900.0, [])
    assert find_profile(store, key, now_s=1000.0) == replace(PROFILE, age_s=100.0)
    later = replace(PROFILE, own_position_s=1e-7)
    save_profile(store, key, later, 1000.0, [])
    assert find_profile(store, key, now_s=1000.0) == later
    assert profile_key(artefact, machine, threads=1) != key
    assert profile_key(artefact, replace(machine, cpu_model="another"), threads=2) != key


def test_a_saved_profile_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    folder = save_profile(store, "key", PROFILE, 0.0, [])
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tile_rows"', '"tiles"'))
    assert find_profile(store, "key", now_s=1.0) is None
