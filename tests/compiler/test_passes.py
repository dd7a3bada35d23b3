"""What each pass makes of a function, and that results stay what they were."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T

from compiler.passes.half_floats import convert_halves_by_integers
from compiler.passes.multiply_add import split_multiply_add
from compiler.passes.pipeline import adapt, passes_of
from compiler.passes.steady_clock import read_steady_clock
from compiler.targets.choice import find_cpu_target

pytestmark = pytest.mark.slow  # imports the compiler

V2 = find_cpu_target("x86-64-v2")


def compile_for_v2(function: tirx.PrimFunc) -> Callable[..., None]:
    module = tvm.compile(tvm.IRModule({"main": function}), target=tvm.target.Target(V2.llvm()))["main"]

    def call(*arrays: np.ndarray) -> None:
        module(*map(tvm_ffi.from_dlpack, arrays))

    return call


def text_of(function: tirx.PrimFunc) -> str:
    return str(function.script())


def assembly_of(function: tirx.PrimFunc) -> str:
    compiled = tvm.compile(tvm.IRModule({"main": function}), target=tvm.target.Target(V2.llvm()))
    return str(compiled.mod.inspect_source("s"))


def halves(lanes: int) -> tuple[Any, Any]:
    """widen(n, half, whole) and narrow(n, whole, half), `lanes` elements at a time."""
    N = tirx.Var("N", "int32")
    many = "" if lanes == 1 else f"x{lanes}"
    at = (lambda i: i) if lanes == 1 else (lambda i: T.ramp(i * lanes, 1, lanes))

    @T.prim_func
    def widen(half: T.Buffer((N,), "float16"), whole: T.Buffer((N,), "float32")):
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for i in T.serial(N // lanes):
            whole[at(i)] = T.cast(half[at(i)], f"float32{many}")

    @T.prim_func
    def narrow(whole: T.Buffer((N,), "float32"), half: T.Buffer((N,), "float16")):
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        for i in T.serial(N // lanes):
            half[at(i)] = T.cast(whole[at(i)], f"float16{many}")

    return widen, narrow


@T.prim_func
def multiply_add(a: T.Buffer((4,), "float32"), out: T.Buffer((1,), "float32")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    out[0] = T.call_llvm_pure_intrin("float32", "llvm.fma", a[0], a[1], a[2])


@T.prim_func
def clock(out: T.Buffer((1,), "int64")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    out[0] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")


@pytest.mark.parametrize("lanes", [1, 16])
def test_every_half_float_is_widened_as_numpy_does(lanes: int) -> None:
    source = np.arange(65536, dtype=np.uint16).view(np.float16)
    result = np.empty(65536, np.float32)
    compile_for_v2(convert_halves_by_integers(halves(lanes)[0]))(source, result)
    with np.errstate(invalid="ignore"):
        expected = source.astype(np.float32)
    signalling = np.isnan(source) & ~(source.view(np.uint16) & 0x200).astype(bool)
    bits = expected.view(np.uint32) | np.where(signalling, 0x400000, 0).astype(np.uint32)
    np.testing.assert_array_equal(result.view(np.uint32), bits)


@pytest.mark.parametrize("lanes", [1, 16])
def test_floats_are_narrowed_as_numpy_does(lanes: int) -> None:
    """Around every half float and around the ties between two, and bits drawn at random."""
    random = np.random.default_rng(5)
    at_halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    near = [at_halves + np.uint32(step) for step in (0, 1, 0xFFF, 0x1000, 0x1001, 0xFFFFFFFF)]
    source = np.concatenate([*near, random.integers(0, 2**32, 65536, np.uint32)]).view(np.float32)
    source = source[~np.isnan(source)]
    source = np.append(source[: len(source) // 16 * 16 - 16], np.array([np.inf, -np.inf] * 8, np.float32))
    result = np.empty(len(source), np.float16)
    compile_for_v2(convert_halves_by_integers(halves(lanes)[1]))(source, result)
    with np.errstate(over="ignore"):
        expected = source.astype(np.float16)
    np.testing.assert_array_equal(result.view(np.uint16), expected.view(np.uint16))


def test_a_nan_stays_one_and_keeps_its_sign() -> None:
    source = np.array([0x7FC00001, 0xFFC00001, 0x7F800001, 0xFFFFFFFF] * 4, np.uint32).view(np.float32)
    result = np.empty(16, np.float16)
    compile_for_v2(convert_halves_by_integers(halves(16)[1]))(source, result)
    assert np.isnan(result).all()
    np.testing.assert_array_equal(np.signbit(result), np.signbit(source))


@pytest.mark.parametrize("direction", [0, 1])
def test_conversions_of_halves_call_no_function_any_more(direction: int) -> None:
    before = halves(16)[direction]
    conversion = re.compile(r"call\w*\s+\S*(extendhfsf2|truncsfhf2)")
    assert conversion.search(assembly_of(before))
    assert not conversion.search(assembly_of(convert_halves_by_integers(before)))


def test_a_multiply_add_becomes_a_product_and_a_sum() -> None:
    assert "llvm.fma" in text_of(multiply_add)
    assert "fmaf" in assembly_of(multiply_add)
    after = split_multiply_add(multiply_add)
    assert "a[0] * a[1] + a[2]" in text_of(after)
    assert "fmaf" not in assembly_of(after)


def test_the_clock_is_the_steady_one() -> None:
    assert "llvm.readcyclecounter" in text_of(clock)
    after = text_of(read_steady_clock(clock))
    assert "llvm.readsteadycounter" in after
    assert "llvm.readcyclecounter" not in after


def test_a_pass_leaves_what_it_does_not_know() -> None:
    for change in (read_steady_clock, convert_halves_by_integers):
        tvm.ir.assert_structural_equal(change(multiply_add), multiply_add)


def test_only_targets_that_lack_something_are_adapted() -> None:
    assert passes_of(V2) == (convert_halves_by_integers, split_multiply_add)
    assert passes_of(find_cpu_target("cortex-a53")) == (read_steady_clock,)
    assert passes_of(find_cpu_target("x86-64-v3")) == ()
    module = tvm.IRModule({"main": multiply_add})
    assert "llvm.fma" in str(adapt(module, find_cpu_target("x86-64-v4")).script())
    assert "llvm.fma" not in str(adapt(module, V2).script())
