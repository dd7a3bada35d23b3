"""Attention over pages against float64, and bits of a row that depend on nothing but the row and its context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.kernels.attention import PAGE_TOKENS
from compiler.models.spec import ArchitectureDims
from compiler.targets.row import CpuTarget
from tests.compiler.attention_region import SESSIONS, Batch, random_batch, run, run_stored
from tests.compiler.kernel_calls import FUSING, RUNNABLE, integers_of, small_dims

pytestmark = pytest.mark.slow


def attention_dims(head_dim: int, repeat: int, kv_heads: int, score_width: int, *flags: bool) -> ArchitectureDims:
    qkv_bias, qk_norm = flags
    return small_dims(
        heads=repeat * kv_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        score_width=score_width,
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
    )


# Every count of query heads to a KV head, every head width, heads that were padded, with biases and norms and without.
SHAPES = [
    attention_dims(32, 1, 3, 32, False, False),
    attention_dims(64, 2, 2, 64, False, True),
    attention_dims(64, 3, 1, 50, True, False),
    attention_dims(128, 4, 1, 128, True, True),
    attention_dims(96, 5, 2, 80, False, False),
    attention_dims(32, 6, 1, 20, True, True),
    attention_dims(128, 7, 2, 128, True, False),
]
BEST = RUNNABLE[0]
KERNELS = [(dims, BEST) for dims in SHAPES] + [(dims, row) for row in RUNNABLE[1:] for dims in SHAPES[1:3]]
NAMES = [f"{dims.head_dim}x{dims.heads // dims.kv_heads}-{row.name}" for dims, row in KERNELS]
# Of each session, the tokens before the batch and those in it.
LENGTHS = st.lists(st.tuples(st.integers(0, 270), st.integers(1, 20)), min_size=1, max_size=SESSIONS)


def expected_heads(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values of every row in float64 [rows, heads, head_dim], the first two normed and rotated."""
    dims = batch.dims
    qkv = batch.qkv.astype(np.float64) + (batch.bias if dims.qkv_bias else 0)
    heads = qkv.reshape(len(qkv), -1, dims.head_dim)
    queries, keys, values = np.split(heads, [dims.heads, dims.heads + dims.kv_heads], axis=1)
    cos, sin = np.split(batch.rope.astype(np.float64)[batch.positions][:, None], 2, axis=-1)

    def turn(x: np.ndarray, gains: np.ndarray) -> np.ndarray:
        if dims.qk_norm:
            x = x / np.sqrt((x**2).sum(-1, keepdims=True) / dims.score_width + dims.rms_eps) * gains
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    return turn(queries, batch.query_norm[0]), turn(keys, batch.key_norm[0]), values


def context_of(batch: Batch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """What the pages hold for a row: keys and values, float64 [tokens, kv_heads, head_dim]."""
    tokens = np.arange(batch.positions[row] + 1)
    pages = batch.pages[batch.slots[row], tokens // PAGE_TOKENS]
    keys = batch.keys[0, pages, :, :, tokens % PAGE_TOKENS]
    return keys.astype(np.float64), batch.values[0, pages, :, tokens % PAGE_TOKENS].astype(np.float64)


@pytest.mark.parametrize(("dims", "target"), KERNELS, ids=NAMES)
@settings(derandomize=True, max_examples=6)
@given(seed=st.integers(0, 999), lengths=LENGTHS, mixed=st.booleans())
def test_attention_follows_float64(
    dims: ArchitectureDims, target: CpuTarget, seed: int, lengths: list[tuple[int, int]], mixed: bool
) -> None:
    """Keys and values within a rounding to float16; outputs, of values about one, within 1e-5."""
    batch = random_batch(dims, seed, lengths, mixed)
    out = run(batch, target).reshape(-1, dims.heads, dims.head_dim)
    queries, new_keys, new_values = expected_heads(batch)
    for row in range(len(out)):
        keys, values = context_of(batch, row)
        np.testing.assert_allclose(keys[-1], new_keys[row], rtol=2**-10, atol=1e-5)
        np.testing.assert_allclose(values[-1], new_values[row], rtol=2**-10, atol=1e-5)
        keys, values = (np.repeat(part, dims.heads // dims.kv_heads, axis=1) for part in (keys, values))
        scores = np.einsum("hd,thd->ht", queries[row], keys) / dims.score_width**0.5
        weights = np.exp(scores - scores.max(1, keepdims=True))
        expected = np.einsum("ht,thd->hd", weights / weights.sum(1, keepdims=True), values)
        np.testing.assert_allclose(out[row], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dims", "target"), KERNELS, ids=NAMES)
@pytest.mark.parametrize("mixed", [False, True], ids=["chunks", "mixed"])
def test_a_row_has_the_same_bits_in_every_batch(dims: ArchitectureDims, target: CpuTarget, mixed: bool) -> None:
    """Alone, in a prefill chunk, among other sessions, on one thread and on two."""
    batch = random_batch(dims, 3, [(230, 11), (0, 20), (37, 1), (90, 4)], mixed)
    together = run(batch, target)
    keys, values = batch.keys.tobytes(), batch.values.tobytes()
    for row in range(len(together)):
        assert run(batch, target, slice(row, row + 1)).tobytes() == together[row].tobytes()
    for rows in range(2, 21):
        for start in (0, len(together) - rows):
            part = slice(start, start + rows)
            assert run(batch, target, part, threads=1 + rows % 2).tobytes() == together[part].tobytes()
    assert run(batch, target, threads=2).tobytes() == together.tobytes()
    assert (batch.keys.tobytes(), batch.values.tobytes()) == (keys, values)


def test_all_targets_that_fuse_give_the_same_bits() -> None:
    for dims in SHAPES[1:3]:
        outputs = {run(random_batch(dims, 4, [(200, 20), (5, 7)], True), row).tobytes() for row in FUSING}
        assert len(outputs) == 1


def test_heads_are_stored_as_integers_too() -> None:
    dims = SHAPES[0]
    batch = random_batch(dims, 5, [(100, 20), (3, 9)], True)
    plain = run(batch, BEST)
    values, scales = run_stored(batch, BEST, True, slice(None), 2)
    steps = scales[:, ::2, None].astype(np.float64)
    error = np.abs(integers_of(values, dims.attention) * steps - plain.reshape(len(plain), -1, 32))
    assert (error <= 0.501 * steps).all()
