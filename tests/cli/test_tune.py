"""`mec compile --tune`: what counts as faster, what is tried, and a whole search on a small budget."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from compiler.targets.choice import find_cpu_target
from mec_apps.cli.compile import compile_command
from mec_apps.cli.tune.candidates import compare, query_changes, row_changes
from mec_apps.cli.tune.trial import run_pairs

ROW = find_cpu_target("sapphirerapids")


def pairs(gain: float, jitter: float, count: int = 9) -> dict[str, list[tuple[float, float]]]:
    noise = random.Random(3)
    return {
        case: [(gain * noise.uniform(1, 1 + jitter), noise.uniform(1, 1 + jitter)) for _ in range(count)]
        for case in ("decode", "prompt")
    }


def test_a_steady_gain_is_one() -> None:
    found = compare(pairs(1.08, jitter=0.02))
    assert found.gain == pytest.approx(1.08, rel=0.02)
    assert found.is_faster


@pytest.mark.parametrize(("gain", "jitter"), [(1.0, 0.02), (1.005, 0.001), (1.05, 0.8), (0.9, 0.01)])
def test_no_gain_a_tiny_one_or_one_within_the_noise_is_none(gain: float, jitter: float) -> None:
    assert not compare(pairs(gain, jitter)).is_faster


def test_one_disturbed_pair_moves_nothing() -> None:
    measured = pairs(1.08, jitter=0.02)
    measured["decode"][4] = (1.0, 50.0)
    assert compare(measured).is_faster


def test_every_candidate_differs_from_the_default_and_keeps_what_was_found_before() -> None:
    best = ROW
    for change in row_changes(ROW, quantised=True):
        candidate = change(best)
        assert candidate not in (ROW, best)
        best = candidate
    assert best.tile_rows != ROW.tile_rows
    assert best.unpack_tiles != ROW.unpack_tiles
    assert all(candidate.tile_rows == best.tile_rows for candidate in query_changes(best))


def test_no_tile_is_far_larger_than_what_the_registers_hold() -> None:
    row = find_cpu_target("x86-64-v3")
    assert {change(row).tile_rows for change in row_changes(row, quantised=True)} <= {(2, 1), (3, 1)}
    assert all(candidate.tile_queries <= 6 for candidate in query_changes(row))


def test_floats_are_tuned_in_their_tiles_alone() -> None:
    assert all(change(ROW).prefetch_groups == ROW.prefetch_groups for change in row_changes(ROW, quantised=False))


def test_both_run_equally_often_and_first_in_turns() -> None:
    calls: list[str] = []
    run_pairs({"decode": lambda: calls.append("known")}, {"decode": lambda: calls.append("new")})
    assert calls.count("known") == calls.count("new")
    assert calls[2:10] == ["known", "known", "new", "new", "new", "new", "known", "known"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tune", "10", "--all-targets"], "one target"),
        (["--tune", "10", "--target", "a", "--target", "b"], "one target"),
        (["--threads", "2"], "goes with --tune"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(compile_command, arguments)
    assert done.exit_code != 0
    assert reason in str(done.exception)
