"""Every kind of quantised tensor, re-packed, has the values that `gguf` gives; what is quantised anew errs little."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.models.groups import SPLITS, Groups, quantise_groups
from compiler.models.stored import FLOAT_KINDS, KINDS, StoredTensor

ROWS, COLUMNS = 32, 512
# Where the float16 numbers of a block lie, in bytes: random bytes there would be infinite now and then.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}


def random_blocks(kind: str, rows: int, columns: int, scale: float = 0.01, seed: int = 5) -> np.ndarray:
    """Valid blocks, uint8 [rows, bytes of a row]: any bits, and scales of the size of `scale`."""
    random = np.random.default_rng(seed)
    per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = random.integers(0, 256, (rows * columns // per_block, block_bytes), np.uint8)
    for offset in HALVES[kind]:
        scales = (scale * random.normal(size=(len(blocks), 1))).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)


def random_tensor(kind: str) -> StoredTensor:
    return StoredTensor("t", kind, (ROWS, COLUMNS), random_blocks(kind, ROWS, COLUMNS).reshape(-1))


def reference(tensor: StoredTensor) -> np.ndarray:
    values = quants.dequantize(tensor.data.reshape(ROWS, -1), GGMLQuantizationType[tensor.kind])
    return np.asarray(values, np.float32)


@pytest.mark.parametrize("kind", sorted(HALVES))
def test_values_of_a_kind_are_those_that_gguf_gives(kind: str) -> None:
    tensor = random_tensor(kind)
    np.testing.assert_array_equal(tensor.values(), reference(tensor))
    np.testing.assert_array_equal(tensor.values(slice(7, 9)), reference(tensor)[7:9])


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_kinds_with_groups_of_32_come_over_exactly(kind: str) -> None:
    tensor = random_tensor(kind)
    groups = tensor.groups()
    assert groups.q.max() < 2 ** SPLITS[kind][0]
    # not bit for bit only because d * q + m is summed in float32 in another order than d * (q - 8)
    np.testing.assert_allclose(groups.values(), reference(tensor), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K"])
def test_k_quants_with_groups_of_32_lose_the_rounding_of_two_products(kind: str) -> None:
    tensor = random_tensor(kind)
    groups = tensor.groups()
    assert groups.q.max() < 2 ** SPLITS[kind][0]
    d, m = (np.abs(np.repeat(part.astype(np.float32), 32, axis=1)) for part in (groups.d, groups.m))
    # half a unit in the last place of float16: 2^-11 of the number, or 2^-25 below its normal range
    bound = groups.q * (d * 2.0**-11 + 2.0**-25) + m * 2.0**-11 + 2.0**-25 + 1e-6
    assert (np.abs(groups.values() - reference(tensor)) <= bound).all()


@pytest.mark.parametrize(("kind", "levels"), [("Q2_K", 4), ("Q3_K", 8), ("Q6_K", 64)])
def test_k_quants_with_groups_of_16_lose_far_less_than_the_file_lost(kind: str, levels: int) -> None:
    """The file erred by about step / sqrt(12) with steps of at least range / levels; 8 bits have range / 255."""
    values = reference(random_tensor(kind))
    error = np.abs(quantise_groups(values, 8).values() - values).reshape(ROWS, -1, 32)
    width = np.ptp(values.reshape(ROWS, -1, 32), axis=-1)
    assert (error.max(-1) <= width * (0.5 / 255 + 2.0**-9)).all()
    added, lost = np.sqrt((error**2).mean()), np.sqrt((width**2).mean()) / levels / 12**0.5
    assert added < lost / 2


@settings(derandomize=True, max_examples=20)
@given(st.integers(0, 99), st.floats(1e-3, 10))
def test_eight_bits_err_by_half_a_step(seed: int, spread: float) -> None:
    weights = np.random.default_rng(seed).normal(size=(32, 64)).astype(np.float32) * np.float32(spread)
    groups = quantise_groups(weights, 8)
    step = np.repeat(groups.d.astype(np.float32), 32, axis=1)
    slack = np.abs(weights).max() * 2e-3  # what float16 loses of d and m
    assert (np.abs(groups.values() - weights) <= step / 2 + slack).all()


@settings(derandomize=True, max_examples=20)
@given(st.integers(0, 99), st.floats(1e-3, 10))
def test_four_bits_err_less_than_rounding_between_the_extremes(seed: int, spread: float) -> None:
    weights = np.random.default_rng(seed).normal(size=(32, 64)).astype(np.float32) * np.float32(spread)
    w = weights.reshape(32, 2, 32)
    low, step = w.min(-1, keepdims=True), np.ptp(w, axis=-1, keepdims=True) / 15
    rounded = (np.rint((w - low) / step) * step + low).reshape(32, 64)
    error = quantise_groups(weights, 4).values() - weights
    assert (error**2).sum() < 0.95 * ((rounded - weights) ** 2).sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_constant_groups_stay_what_they_are(bits: int) -> None:
    weights = np.repeat(np.array([[0.0, -1.5, 0.25]], np.float32), 32, axis=1)
    np.testing.assert_array_equal(quantise_groups(weights, bits).values(), weights)


def test_rows_are_taken_in_any_order_with_zeros_between() -> None:
    groups = random_tensor("Q4_1").groups()
    taken = groups.rows(np.array([3, -1, 0])).values()
    np.testing.assert_array_equal(taken[[0, 2]], groups.values()[[3, 0]])
    assert not taken[1].any()


def test_every_kind_that_is_offered_can_be_read() -> None:
    for kind in KINDS:
        per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        tensor = StoredTensor("t", kind, (2, per_block), np.zeros(2 * block_bytes, np.uint8))
        assert tensor.values().shape == (2, per_block)
    assert {*SPLITS, *FLOAT_KINDS} <= set(KINDS)


def test_bf16_and_f16_are_read_exactly() -> None:
    weights = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float16)
    tensor = StoredTensor("t", "F16", (4, 8), weights.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(tensor.values(), weights.astype(np.float32))
    upper = (weights.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    tensor = StoredTensor("t", "BF16", (4, 8), upper.reshape(-1).view(np.uint8))
    np.testing.assert_array_equal(tensor.values(), (upper.astype(np.uint32) << 16).view(np.float32))


def test_groups_state_their_values() -> None:
    groups = Groups(np.full((1, 32), 3, np.uint8), np.full((1, 1), 0.5, np.float16), np.full((1, 1), -1, np.float16))
    assert (groups.values() == 0.5).all()
