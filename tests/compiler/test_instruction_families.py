"""What each target's kernels are made of: its own instructions, and none that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import tvm

from compiler.instruction_families import count_families
from compiler.passes.pipeline import adapt
from compiler.targets.choice import find_cpu_target
from tests.compiler.kernel_calls import multiply_function

pytestmark = pytest.mark.slow

X86_TEXT = """
main:
	vpdpbusd	%zmm1, %zmm2, %zmm3
	vpdpbusd	8(%rax){1to16}, %zmm2, %zmm3
	{vex}	vpdpbusd	%ymm1, %ymm2, %ymm3
	pmaddubsw	%xmm1, %xmm2
	vfmadd231ps	(%rax), %zmm1, %zmm2 {%k1}
	callq	fmaf@PLT
"""
ARM_TEXT = """
	sdot	v0.4s, v1.16b, v2.4b[0]
	smull2	v0.8h, v1.16b, v2.16b
	smull	x0, w1, w2
	fmla	v0.4s, v1.4s, v2.s[1]
"""


def test_families_are_counted_with_the_width_of_their_registers() -> None:
    assert count_families(X86_TEXT, "x86_64") == {
        "fma zmm": 1,
        "pmaddubsw xmm": 1,
        "vpdpbusd ymm": 1,
        "vpdpbusd zmm": 2,
    }


def test_only_vector_instructions_count() -> None:
    assert count_families(ARM_TEXT, "aarch64") == {"fmla": 1, "sdot": 1, "smull": 1}


@pytest.fixture(scope="module")
def families_of() -> Callable[[str], set[str]]:
    """families_of(target): what the product of integers, with its half floats and fused sums, compiles to."""

    def families(target: str) -> set[str]:
        row = replace(find_cpu_target(target), tile_rows=(2, 1))  # smaller tiles compile faster
        module = tvm.IRModule({"multiply": multiply_function("int4", row)})
        compiled = tvm.compile(adapt(module, row), target=tvm.target.Target(row.llvm()))
        return set(count_families(compiled.mod.inspect_source("s"), row.arch))

    return families


@pytest.mark.parametrize(
    ("target", "has", "lacks"),
    [
        ("sapphirerapids", {"vpdpbusd zmm", "fma zmm", "float16 zmm"}, {"pmaddubsw zmm"}),
        ("cascadelake", {"vpdpbusd zmm", "fma zmm"}, {"pmaddubsw zmm"}),
        ("x86-64-v4", {"pmaddubsw zmm", "fma zmm"}, {"vpdpbusd zmm"}),
        ("alderlake", {"vpdpbusd ymm", "fma ymm"}, {"fma zmm", "vpdpbusd zmm"}),
        ("x86-64-v3", {"pmaddubsw ymm", "fma ymm", "float16 ymm"}, {"pmaddubsw zmm", "vpdpbusd ymm", "fma zmm"}),
        ("x86-64-v2", {"pmaddubsw xmm", "mulps xmm"}, {"pmaddubsw ymm", "fma xmm", "float16 xmm"}),
        ("neoverse-v2", {"usdot", "fmla", "float16"}, {"sdot", "sve"}),
        ("cortex-a76", {"sdot", "fmla", "float16"}, {"usdot", "smull", "sve"}),
        ("neoverse-n1", {"sdot", "fmla"}, {"usdot", "smull", "sve"}),
        ("apple-m", {"sdot", "fmla"}, {"usdot", "sve"}),
        ("cortex-a72", {"smull", "sadalp", "fmla"}, {"sdot", "usdot", "sve"}),
        ("cortex-a53", {"smull", "sadalp", "fmla"}, {"sdot", "usdot", "sve"}),
    ],
)
def test_kernels_use_the_targets_instructions(
    families_of: Callable[[str], set[str]], target: str, has: set[str], lacks: set[str]
) -> None:
    found = families_of(target)
    assert has <= found
    assert not lacks & found
