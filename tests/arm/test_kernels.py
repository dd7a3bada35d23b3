"""Every way to multiply bytes on ARM, run on a core that has it: exact integers, and bits that no batch changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm

from compiler.kernels.activations import LARGEST
from compiler.linking import link_for
from compiler.models.groups import Groups
from compiler.packing import pack_groups
from compiler.passes.pipeline import adapt
from compiler.quantisation import INTEGER_BITS
from compiler.targets.choice import find_cpu_target
from tests.arm.conftest import RunArm
from tests.compiler.kernel_calls import integer_rows, multiply_function

pytestmark = pytest.mark.arm

RUN_KERNELS = str(Path(__file__).with_name("run_kernels.py"))
# The emulator's core: the rows that it can run. It has no core of its own with i8mm; "max" is all that it knows.
CORES = {"cortex-a72": ("cortex-a53", "cortex-a72"), "cortex-a76": ("cortex-a76",), "max": ("neoverse-v2",)}


def prepare(folder: Path, target: str, stored: str) -> np.ndarray:
    """A folder for `run_kernels`, and the sums that it should find: large ones of random bytes, and the largest."""
    row, largest = find_cpu_target(target), 2 ** INTEGER_BITS[stored] - 1
    module = adapt(tvm.IRModule({"multiply": multiply_function(stored, row)}), row)
    folder.mkdir(parents=True)
    compiled = tvm.compile(module, target=tvm.target.Target(row.llvm()))
    compiled.export_library(str(folder / "lib.so"), fcompile=link_for(row.arch))
    random = np.random.default_rng(7)
    q = random.integers(0, largest + 1, (64, 64)).astype(np.uint8)
    q[:8] = largest
    one, none = np.ones((64, 2), np.float16), np.zeros((64, 2), np.float16)
    x = np.zeros((9, 64), np.int64)
    x[:5] = random.integers(-LARGEST, LARGEST + 1, (5, 64)) // 64
    x[5:7] = [[127], [-128]]  # the ends of the low term, in every column
    x[7:, 4:6] = [[LARGEST], [-LARGEST]]  # those of both terms, in as many as float32 holds
    w, s = pack_groups(Groups(q, one, none), INTEGER_BITS[stored])
    values, scales = integer_rows(x, np.ones((len(x), 2)))
    np.savez(folder / "operands.npz", w=w[None], s=s[None], values=values, scales=scales)
    expected: np.ndarray = x @ q.astype(np.int64).T
    assert np.abs(expected).max() < 2**24, "float32 holds these exactly"
    return expected


@pytest.mark.parametrize("core", CORES)
def test_sums_of_bytes_are_exact_and_batch_invariant(run_arm: RunArm, tmp_path: Path, core: str) -> None:
    cases = {tmp_path / target / stored: (target, stored) for target in CORES[core] for stored in ("int4", "int8")}
    expected = {folder: prepare(folder, *case) for folder, case in cases.items()}
    done = run_arm(core, RUN_KERNELS, *map(str, cases))
    assert done.returncode == 0, done.stderr
    for folder, sums in expected.items():
        results = np.load(folder / "results.npz")
        np.testing.assert_array_equal(results["together"], sums, err_msg=str(cases[folder]))
        assert results["alone"].tobytes() == results["together"].tobytes()
