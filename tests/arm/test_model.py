"""The default model, compiled for ARM on this machine, computes there what it computes here; no other core starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.build import CompiledModel, compile_model
from tests.arm import run_model
from tests.arm.conftest import RunArm

pytestmark = pytest.mark.arm

RUN_MODEL = str(Path(run_model.__file__))
TOKENS = [1, 4093, 198, 2683, 359, 253, 5356, 2, 198, 1, 520, 9531]
# Of the largest logit. Measured: 0, the same bits, because every row sums in the same order with the same roundings; no
# more than this is promised between architectures.
TOLERANCE = 1e-4


def compiled_for(target: str) -> CompiledModel:
    return compile_model("smollm2", "int4", target)


def logits_of(results: Path, compiled: CompiledModel, how: str = "together") -> np.ndarray:
    return np.asarray(np.load(results)[f"{compiled.artefact_dir.name}.{how}"])


@pytest.fixture(scope="module")
def here(compiled_model_dirs: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Logits on this machine, in a process of its own like those that they are compared with."""
    results = tmp_path_factory.mktemp("here") / "logits.npz"
    command = [sys.executable, RUN_MODEL, *arguments(compiled_model_dirs, results)]
    subprocess.run(command, check=True, timeout=120)
    return logits_of(results, compiled_model_dirs)


def arguments(compiled: CompiledModel, results: Path, *more: CompiledModel) -> list[str]:
    artefacts = [str(each.artefact_dir) for each in (compiled, *more)]
    return [str(compiled.package_dir), str(results), ",".join(map(str, TOKENS)), *artefacts]


@pytest.mark.parametrize(
    ("core", "targets"),
    [("cortex-a72", ["cortex-a53"]), ("neoverse-n1", ["cortex-a76", "neoverse-n1"]), ("max", ["neoverse-v2"])],
)
def test_logits_agree_and_no_batch_or_cut_changes_a_bit(
    run_arm: RunArm, here: np.ndarray, tmp_path: Path, core: str, targets: list[str]
) -> None:
    compiled = [compiled_for(target) for target in targets]
    done = run_arm(core, RUN_MODEL, *arguments(compiled[0], tmp_path / "logits.npz", *compiled[1:]))
    assert done.returncode == 0, done.stderr
    for each, target in zip(compiled, targets, strict=True):
        there = logits_of(tmp_path / "logits.npz", each)
        difference = float(np.abs(there - here).max() / np.abs(here).max())
        assert difference <= TOLERANCE, target
        assert (there.argmax(1) == here.argmax(1)).all()
        assert logits_of(tmp_path / "logits.npz", each, "alone").tobytes() == there.tobytes()


def test_a_build_with_dot_products_is_refused_by_a_core_without_them(run_arm: RunArm, tmp_path: Path) -> None:
    compiled = compiled_for("cortex-a76")
    folders = ["--package", str(compiled.package_dir), "--artefact", str(compiled.artefact_dir)]
    done = run_arm("cortex-a72", "-m", "mec_apps.cli", "node", "--name", "edge-72", *folders)
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert "was compiled for cortex-a76 (aarch64); edge-72 is" in message
    assert "lacks asimddp" in message


@pytest.mark.parametrize(
    ("core", "target"),
    [("cortex-a53", "cortex-a53"), ("cortex-a76", "neoverse-n1"), ("max", "neoverse-v2")],
)
def test_a_machine_finds_its_target(run_arm: RunArm, core: str, target: str) -> None:
    """The emulator does not say which core it is; what it can do is read where the emulator answers, not from /proc."""
    shown = json.loads(run_arm(core, "-m", "mec_apps.cli", "node", "--show-hardware", "--json").stdout)
    assert (shown["arch"], shown["target"]["name"]) == ("aarch64", target)
    assert "asimd" in shown["features"]
