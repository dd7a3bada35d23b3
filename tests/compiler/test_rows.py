"""What is done to one row after another: exponentials, RMS norm, and storage as integers or floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.activations import LARGEST
from compiler.kernels.vector import lanes, store_exp
from tests.compiler.kernel_calls import (
    RUNNABLE,
    activation_format,
    aligned,
    aligned_zeros,
    compile_function,
    integers_of,
    small_dims,
)

pytestmark = pytest.mark.slow

BEST = RUNNABLE[0]
WIDTHS = [(32, 32), (96, 90), (224, 193)]  # as the kernels see them, and of the model
few_rows = settings(derandomize=True, max_examples=10)


@lru_cache
def compile_exp() -> Callable[..., None]:
    N = tirx.Var("N", "int32")

    @T.prim_func
    def exp(x: T.Buffer((N, 16), "float32"), out: T.Buffer((N * 16,), "float32")):
        T.func_attr({"global_symbol": "exp", "tirx.noalias": True})
        for i in T.serial(N):
            store_exp(out, i * 16, x[i, lanes(0)])

    return compile_function(exp, BEST)


def exp_of(x: np.ndarray) -> np.ndarray:
    out = aligned_zeros((x.size,), np.float32)
    compile_exp()(aligned(x.reshape(-1, 16)), out)
    return out


@lru_cache
def compile_normalise(quantised: bool, width: int, norm_width: int) -> Callable[..., None]:
    dims = small_dims(hidden=width, norm_width=norm_width)
    acts = activation_format(dims, quantised)
    normalise = acts.normalise
    M = tirx.Var("M", "int32")

    @T.prim_func
    def norm(
        rows: T.Buffer((M, width), "float32"),
        gains: T.Buffer((1, width), "float32"),
        values: T.Buffer((M, acts.values_stride(width)), acts.values_dtype),
        scales: T.Buffer((M, width // 32 * 2), "float32"),
    ):
        T.func_attr({"global_symbol": "norm", "tirx.noalias": True})
        for r in T.serial(M):
            normalise(rows, r, gains, 0, values, scales)

    return compile_function(norm, BEST)


def normalised(quantised: bool, norm_width: int, rows: np.ndarray, gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values without their padding, and scales."""
    width = rows.shape[1]
    acts = activation_format(small_dims(hidden=width), quantised)
    values = aligned_zeros((len(rows), acts.values_stride(width)), acts.values_dtype)
    scales = aligned_zeros((len(rows), width // 32 * 2), np.float32)
    compile_normalise(quantised, width, norm_width)(aligned(rows), aligned(gains[None]), values, scales)
    return values[:, : width // 32 * acts.values_per_group], scales


def random_rows(seed: int, rows: int, width: int, norm_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different sizes, zero beyond the model's own width, and gains."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, width)) * 10 ** random.uniform(-3, 3, (rows, 1))
    values[:, norm_width:] = 0
    return values.astype(np.float32), random.normal(size=width).astype(np.float32)


def test_exp_follows_float64() -> None:
    """Within two units of the last place, and the share of the argument by which float32 misses log2(e)."""
    x = np.linspace(-87, 88, 1 << 20).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    assert (np.abs(exp_of(x) - expected) <= (2**-22 + 1.4e-8 * np.abs(x)) * expected).all()


def test_exp_holds_its_argument_to_what_a_float_can_be() -> None:
    held = exp_of(np.repeat(np.array([-1e30, -87, 88, 1e30], np.float32), 16))[::16]
    assert held[0] == held[1] > 0
    assert held[3] == held[2] < np.inf


@pytest.mark.parametrize(("width", "norm_width"), WIDTHS)
@few_rows
@given(seed=st.integers(0, 999), rows=st.integers(1, 40))
def test_norm_follows_float64(width: int, norm_width: int, seed: int, rows: int) -> None:
    source, gains = random_rows(seed, rows, width, norm_width)
    values, _ = normalised(False, norm_width, source, gains)
    exact = source.astype(np.float64)
    expected = exact / np.sqrt((exact**2).sum(1, keepdims=True) / norm_width + 1e-5) * gains
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("width", "norm_width"), WIDTHS)
@few_rows
@given(seed=st.integers(0, 999), rows=st.integers(1, 40))
def test_integers_are_within_half_a_step_of_the_floats(width: int, norm_width: int, seed: int, rows: int) -> None:
    source, gains = random_rows(seed, rows, width, norm_width)
    floats = normalised(False, norm_width, source, gains)[0].astype(np.float64).reshape(rows, -1, 32)
    values, scales = normalised(True, norm_width, source, gains)
    whole, steps = integers_of(values, width), scales[:, ::2].astype(np.float64)
    np.testing.assert_allclose(steps, np.abs(floats).max(2) / LARGEST, rtol=2**-22)
    assert (np.abs(whole).max(2) == LARGEST).all()
    assert (np.abs(whole * steps[..., None] - floats) <= 0.51 * steps[..., None]).all()
    np.testing.assert_array_equal(scales[:, 1::2], scales[:, ::2] * whole.sum(2).astype(np.float32))


def test_a_group_of_zeros_is_stored_as_zeros() -> None:
    values, scales = normalised(True, 64, np.zeros((3, 64), np.float32), np.ones(64, np.float32))
    assert not values.any()
    assert np.isfinite(scales).all()


@pytest.mark.parametrize("quantised", [False, True])
def test_a_normalised_row_has_the_same_bits_in_every_batch(quantised: bool) -> None:
    source, gains = random_rows(2, 20, 96, 96)
    alone = [normalised(quantised, 96, source[row : row + 1], gains) for row in range(20)]
    for rows in range(2, 21):
        together = normalised(quantised, 96, source[:rows], gains)
        for part in range(2):
            assert together[part].tobytes() == b"".join(one[part].tobytes() for one in alone[:rows])
