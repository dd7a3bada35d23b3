"""Rows times packed weights: exact integers, floats near float64, and bits that depend on nothing but the row."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.kernels.activations import LARGEST
from compiler.kernels.dot import DOTS
from compiler.kernels.linear import weight_format
from compiler.models.groups import Groups
from compiler.packing import pack_floats, pack_groups
from compiler.quantisation import INTEGER_BITS
from compiler.targets.choice import find_cpu_target
from compiler.targets.row import CpuTarget
from tests.compiler.kernel_calls import (
    BYTE_TARGETS,
    RUNNABLE,
    activation_format,
    aligned,
    aligned_zeros,
    compile_function,
    integer_rows,
    multiply_function,
    small_dims,
)

pytestmark = pytest.mark.slow

INTEGERS = [pytest.param(s, t, id=f"{s}-{t.name}") for s in ("int4", "int8") for t in BYTE_TARGETS]
FLOATS = [pytest.param(s, t, id=f"{s}-{t.name}") for s in ("f32", "f16", "bf16") for t in RUNNABLE]
few_shapes = settings(derandomize=True, max_examples=8)
any_shape = given(seed=st.integers(0, 999), rows=st.integers(1, 40), strips=st.integers(1, 3), groups=st.integers(1, 7))


@lru_cache
def compile_multiply(stored: str, target: CpuTarget) -> Callable[..., None]:
    return compile_function(multiply_function(stored, target), target)


def multiply_integers(
    stored: str, target: CpuTarget, weights: Groups, x: np.ndarray, row_scales: np.ndarray
) -> np.ndarray:
    """x: int64 [M, K], of which `row_scales` [M, K/32] are the scales."""
    q, s = pack_groups(weights, INTEGER_BITS[stored])
    return multiply(stored, target, q, s, *integer_rows(x, row_scales))


def multiply_floats(stored: str, target: CpuTarget, packed: np.ndarray, x: np.ndarray) -> np.ndarray:
    values = aligned_zeros((len(x), activation_format(small_dims(), False).values_stride(x.shape[1])), np.float32)
    values[:, : x.shape[1]] = x
    groups = x.shape[1] // 32
    unused = np.zeros((len(packed), groups, 4, 16), np.float16)
    return multiply(stored, target, packed, unused, values, np.zeros((len(x), groups * 2), np.float32))


def multiply(
    stored: str, target: CpuTarget, q: np.ndarray, s: np.ndarray, values: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    out = aligned_zeros((len(values), 32 * len(q)), np.float32)
    compile_multiply(stored, target)(aligned(q[None]), aligned(s[None]), values, aligned(scales), out)
    return out


def grouped(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1, 32)


def random_weights(random: np.random.Generator, stored: str, outputs: int, groups: int, scales: Any) -> Groups:
    q = random.integers(0, 2 ** INTEGER_BITS[stored], (outputs, groups * 32)).astype(np.uint8)
    return Groups(q, scales().astype(np.float16), scales().astype(np.float16))


def weights_of(groups: Groups) -> np.ndarray:
    d, m = (np.repeat(part.astype(np.float64), 32, axis=1) for part in (groups.d, groups.m))
    return groups.q * d + m


@pytest.mark.parametrize(("stored", "target"), INTEGERS)
@few_shapes
@any_shape
def test_sums_of_integers_are_exact(
    stored: str, target: CpuTarget, seed: int, rows: int, strips: int, groups: int
) -> None:
    """Small enough that no order of additions rounds; both terms of an activation take part."""
    random = np.random.default_rng(seed)
    weights = random_weights(random, stored, strips * 32, groups, lambda: random.integers(-1, 2, (strips * 32, groups)))
    x = random.integers(-280, 281, (rows, groups * 32))
    expected = x @ weights_of(weights).T
    assert (np.abs(x) @ np.abs(weights_of(weights)).T).max() < 2**24
    np.testing.assert_array_equal(multiply_integers(stored, target, weights, x, np.ones((rows, groups))), expected)


@pytest.mark.parametrize(("stored", "target"), INTEGERS)
def test_the_largest_sums_do_not_overflow(stored: str, target: CpuTarget) -> None:
    largest = 2 ** INTEGER_BITS[stored] - 1
    weights = Groups(np.full((32, 32), largest, np.uint8), np.ones((32, 1), np.float16), np.zeros((32, 1), np.float16))
    x = np.repeat([[LARGEST], [-LARGEST], [127], [-32385]], 32, axis=1)
    expected = (x.sum(1, keepdims=True) * largest).repeat(32, 1).astype(np.float32)
    np.testing.assert_array_equal(multiply_integers(stored, target, weights, x, np.ones((4, 1))), expected)


@pytest.mark.parametrize(("stored", "target"), INTEGERS)
@few_shapes
@any_shape
def test_integers_with_scales_follow_float64(
    stored: str, target: CpuTarget, seed: int, rows: int, strips: int, groups: int
) -> None:
    """Within three roundings of float32 for each group."""
    random = np.random.default_rng(seed)
    weights = random_weights(random, stored, strips * 32, groups, lambda: random.normal(size=(strips * 32, groups)))
    x = random.integers(-LARGEST, LARGEST + 1, (rows, groups * 32))
    row_scales = random.uniform(1e-5, 1e-3, (rows, groups)).astype(np.float32)
    real = x * np.repeat(row_scales.astype(np.float64), 32, axis=1)
    parts = np.abs(real) @ (weights.q * np.repeat(np.abs(weights.d.astype(np.float64)), 32, axis=1)).T
    parts += np.abs(grouped(real).sum(2)) @ np.abs(weights.m.astype(np.float64)).T
    error = np.abs(multiply_integers(stored, target, weights, x, row_scales) - real @ weights_of(weights).T)
    assert (error <= 3 * groups * 2**-24 * parts).all()


@pytest.mark.parametrize(("stored", "target"), FLOATS)
@few_shapes
@any_shape
def test_floats_follow_float64(stored: str, target: CpuTarget, seed: int, rows: int, strips: int, groups: int) -> None:
    """Within one rounding of float32 for each column."""
    random = np.random.default_rng(seed)
    packed = pack_floats(random.normal(size=(strips * 32, groups * 32)), stored)
    x = random.normal(size=(rows, groups * 32)).astype(np.float32)
    exact = (packed.astype(np.uint32) << 16).view(np.float32) if stored == "bf16" else packed
    weights = exact.astype(np.float64).transpose(0, 2, 1).reshape(strips * 32, -1)
    error = np.abs(multiply_floats(stored, target, packed, x) - x @ weights.T)
    assert (error <= groups * 32 * 2**-24 * (np.abs(x) @ np.abs(weights).T)).all()


@pytest.mark.parametrize(("stored", "target"), INTEGERS + FLOATS)
def test_a_row_has_the_same_bits_in_every_batch(stored: str, target: CpuTarget) -> None:
    random = np.random.default_rng(5)
    groups, strips, most = 3, 2, 40
    if stored in INTEGER_BITS:
        weights = random_weights(random, stored, strips * 32, groups, lambda: random.normal(size=(strips * 32, groups)))
        x = random.integers(-LARGEST, LARGEST + 1, (most, groups * 32))
        scales = random.uniform(1e-5, 1e-3, (most, groups))

        def run(rows: slice) -> np.ndarray:
            return multiply_integers(stored, target, weights, x[rows], scales[rows])
    else:
        packed = pack_floats(random.normal(size=(strips * 32, groups * 32)), stored)
        x = random.normal(size=(most, groups * 32)).astype(np.float32)

        def run(rows: slice) -> np.ndarray:
            return multiply_floats(stored, target, packed, x[rows])

    alone = np.concatenate([run(slice(row, row + 1)) for row in range(most)])
    for rows in range(2, most + 1):
        assert run(slice(rows)).tobytes() == alone[:rows].tobytes(), rows


def test_nibbles_never_take_the_way_of_bytes_not_even_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    row = find_cpu_target("x86-64-v3")
    monkeypatch.setitem(DOTS, row.dot, {4: DOTS[row.dot][4]})
    assert weight_format("int4", row).unpack is not None
    with pytest.raises(KeyError):
        weight_format("int8", row)
