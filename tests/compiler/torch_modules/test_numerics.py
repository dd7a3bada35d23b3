"""Compiled torch modules give what torch gives, wherever they are cut, and the same bits for any cut and number of threads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from mec_platform.domain.layers import LayerRange
from tests.compiler.torch_modules.conftest import Compiled
from tests.compiler.torch_modules.modules import MODULES

pytestmark = pytest.mark.slow

# float32 sums in another order than torch's, over a few hundred terms and some layers, of values around one.
TOLERANCE = 2e-5
# A transformer and an encoder without attention by default; those with convolutions, which compile slowly, when asked for.
NAMES = [pytest.param(name, marks=[pytest.mark.thorough] if name in ("audio", "picture") else []) for name in MODULES]


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_module_agrees_with_torch(compiled: Callable[[str], Compiled], name: str) -> None:
    case = compiled(name)
    package, encoder = case.open()
    result = encoder.run_one(LayerRange(0, package.shape.blocks), case.given)
    np.testing.assert_allclose(result, case.expected, rtol=0, atol=TOLERANCE * np.abs(case.expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_and_both_numbers_of_threads_give_the_same_bits(
    compiled: Callable[[str], Compiled], name: str
) -> None:
    case = compiled(name)
    package, encoder = case.open()
    blocks = package.shape.blocks
    whole = encoder.run_one(LayerRange(0, blocks), case.given)
    for cut in range(1, blocks):
        front = encoder.run_one(LayerRange(0, cut), case.given)
        assert np.array_equal(encoder.run_one(LayerRange(cut, blocks), front), whole)
    _, threaded = case.open(threads=2)
    assert np.array_equal(threaded.run_one(LayerRange(0, blocks), case.given), whole)


def test_layers_of_one_shape_share_one_compiled_function(compiled: Callable[[str], Compiled]) -> None:
    package, _ = compiled("vision").open()
    assert package.names == ("start", "blocks.0", "blocks.1", "blocks.2", "the rest")
    assert package.functions == ("f0", "f1", "f1", "f1", "f2")


def test_a_tensor_of_another_shape_or_a_partition_that_is_not_there_is_refused(
    compiled: Callable[[str], Compiled],
) -> None:
    case = compiled("mixer")
    _, encoder = case.open()
    with pytest.raises(ValueError, match="takes"):
        encoder.run_one(LayerRange(0, 1), case.given[:, :-1])
    with pytest.raises(ValueError, match="4 partitions"):
        encoder.run_one(LayerRange(3, 5), case.given)


def test_a_process_that_runs_a_module_has_neither_torch_nor_the_compiler(compiled: Callable[[str], Compiled]) -> None:
    case = compiled("mixer")
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from mec_apps.split_inference.encoder_package import EncoderPackage\n"
        "from mec_apps.split_inference.node.compiled_encoder import CompiledEncoder\n"
        "from mec_platform.domain.layers import LayerRange\n"
        "package = EncoderPackage.open(Path(sys.argv[1]))\n"
        "encoder = CompiledEncoder(package, Path(sys.argv[2]), threads=1)\n"
        "result = encoder.run_one(LayerRange(0, 4), np.zeros(package.boundaries[0], np.float32))\n"
        "import json; print(json.dumps([list(result.shape), sorted({'tvm', 'torch', 'compiler'} & set(sys.modules))]))"
    )
    command = [sys.executable, "-c", script, str(case.package_dir), str(case.artefact_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[2, 25, 36], []]
