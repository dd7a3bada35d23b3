"""The parts of `mec bench targets`: rows that cannot be built, gains, criteria, and a round on this machine's own row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.build import CompiledModel as CompiledDirs
from compiler.errors import BuildError
from compiler.targets.choice import detect_local_target
from mec_platform.content_store.store import ContentStore
from tests.benchmarks import targets
from tests.benchmarks.rates import Rates


@pytest.mark.slow
def test_a_row_that_cannot_be_built_is_listed_with_the_reason(
    compiled_model_dirs: CompiledDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BuildError("no CUDA compiler; install one")

    monkeypatch.setattr(targets, "ensure_row_artefact", fail)
    built = targets._build(compiled_model_dirs.package_dir, "a100", ContentStore(tmp_path), "1 of 1")
    assert (built.kind, built.not_built, built.compile_s, built.folder) == (
        "gpu",
        "no CUDA compiler; install one",
        None,
        None,
    )
    assert targets._build_metrics([built]) == {"targets_built": 0}


def test_this_machine_runs_its_own_row_last() -> None:
    assert targets.runnable_levels()[-1] == detect_local_target()


def test_gains_are_of_the_own_row_over_the_oldest_x86_where_both_ran() -> None:
    rates = Rates()
    for name, speed in (("x86-64-v2", 100.0), ("own", 450.0)):
        rates.add(f"{name}_prefill_128", [speed, speed / 2])
    assert targets._gains(rates, "own") == {"native_over_v2_prefill_128": 4.5}
    assert targets._gains(rates, "another") == {}


def test_criteria_are_those_of_what_was_measured() -> None:
    assert targets._criteria({"profile_held_out_max_error": 0.2}) == [
        {"name": "profile_held_out_max_error", "value": 0.2, "bound": 0.15, "ok": False}
    ]


@pytest.mark.slow
def test_variants_run_in_turns(compiled_model_dirs: CompiledDirs) -> None:
    rates = targets._measure_speeds({"own": compiled_model_dirs}, threads=1, rounds=1)
    assert set(rates.names()) == {"own_prefill_128", "own_decode"}
    assert all(rates.best(name) > 0 for name in rates.names())
