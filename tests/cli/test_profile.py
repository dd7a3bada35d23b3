"""`mec profile`: least work by operation, and the limits that it is held against."""

from __future__ import annotations

import pytest

from compiler.build import CompiledModel as CompiledDirs
from compiler.kernels.blocks import REGIONS
from compiler.limits import LimitKernels, Limits
from mec_apps.cli.profile.timing import measure_step
from mec_apps.cli.profile.work import Work, block_work, head_work
from mec_apps.cli.requests import CliError
from mec_apps.split_inference.model_package import ModelPackage

LIMITS = Limits(read_bytes_per_s=100.0, float_ops_per_s=10.0, byte_ops_per_s=1000.0)


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (Work(read_bytes=200, byte_ops=100), 2, "memory"),
        (Work(read_bytes=200, byte_ops=5000), 5, "int8"),
        (Work(read_bytes=200, float_ops=30, byte_ops=100), 3, "float32"),
    ],
)
def test_the_slowest_of_what_has_to_be_done_binds(work: Work, seconds: float, bound: str) -> None:
    assert work.least_seconds(LIMITS) == (seconds, bound)


def test_the_best_of_two_measurements_is_taken_limit_by_limit() -> None:
    assert LIMITS.best(Limits(50.0, 20.0, 2000.0)) == Limits(100.0, 20.0, 2000.0)


@pytest.mark.slow
def test_every_limit_is_measured() -> None:
    limits = LimitKernels(threads=1, read_bytes=1 << 20).measure()
    assert min(limits.read_bytes_per_s, limits.float_ops_per_s, limits.byte_ops_per_s) > 0


@pytest.mark.slow
def test_more_rows_multiply_more_and_read_the_same_weights(compiled_model_dirs: CompiledDirs) -> None:
    package = ModelPackage.open(compiled_model_dirs.package_dir)
    one, eight = block_work(package, 1, 0), block_work(package, 8, 0)
    assert eight["qkv"].read_bytes == one["qkv"].read_bytes
    assert eight["qkv"].byte_ops == 8 * one["qkv"].byte_ops == 8 * 2 * 2 * 960 * 576
    assert eight["attention"].float_ops == 36 * one["attention"].float_ops  # 1 + 2 + ... + 8 positions
    matrices = sum((work for name, work in one.items() if name != "attention"), Work())
    assert 0.99 < matrices.read_bytes / package.shape.block_bytes <= 1
    assert head_work(package, 1).read_bytes <= package.shape.head_bytes


@pytest.mark.slow
def test_a_step_is_timed_part_by_part(compiled_model_dirs: CompiledDirs) -> None:
    found = measure_step(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, 1, rows=2, context=20)
    parts = {part.operation: part for part in found.parts}
    assert parts.keys() == {*REGIONS, "embed", "waiting", "call", "head", "sample"}
    assert found.total_us == pytest.approx(sum(part.us for part in found.parts))
    assert all(part.us > 0 for name, part in parts.items() if name not in ("waiting", "call"))
    assert block_work(ModelPackage.open(compiled_model_dirs.package_dir), 2, 20).keys() <= parts.keys()
    assert parts["head"].bound_by in ("memory", "float32", "int8")
    assert parts["sample"].limit_share is None


@pytest.mark.slow
def test_more_tokens_than_the_model_takes_are_refused(compiled_model_dirs: CompiledDirs) -> None:
    with pytest.raises(CliError, match="8192"):
        measure_step(compiled_model_dirs.package_dir, compiled_model_dirs.artefact_dir, 1, rows=8, context=8190)
