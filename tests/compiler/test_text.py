"""Tokens to rows and rows to logits: near float64, with bits that depend on nothing but the row."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.kernels import text
from compiler.kernels.expansion import quick_expansion
from compiler.kernels.linear import weight_format
from compiler.models.groups import Groups
from compiler.packing import pack_floats, pack_groups
from compiler.targets.row import CpuTarget
from tests.compiler.kernel_calls import (
    BYTE_TARGETS,
    RUNNABLE,
    activation_format,
    aligned,
    aligned_zeros,
    compile_function,
    integers_of,
    scratch_arrays,
    small_dims,
)

pytestmark = pytest.mark.slow

BEST = RUNNABLE[0]
STORED = ["int8", "f32", "f16", "bf16"]
TEXT = small_dims(hidden=96, norm_width=90, vocab=160)


def text_weights(stored: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q and s of a random matrix, and what they stand for, float64 [vocab, hidden]."""
    random = np.random.default_rng(1)
    shape = TEXT.vocab, TEXT.hidden
    if stored == "int8":
        d, m = (random.normal(size=(shape[0], shape[1] // 32)).astype(np.float16) for _ in range(2))
        groups = Groups(random.integers(0, 256, shape).astype(np.uint8), d, m)
        q, s = pack_groups(groups, 8)
        exact = groups.q * np.repeat(d.astype(np.float64), 32, axis=1) + np.repeat(m.astype(np.float64), 32, axis=1)
        return aligned(q[None]), aligned(s[None]), exact
    q = pack_floats(random.normal(size=shape), stored)
    floats = (q.astype(np.uint32) << 16).view(np.float32) if stored == "bf16" else q
    exact = floats.astype(np.float64).transpose(0, 2, 1).reshape(shape)
    return aligned(q[None]), aligned_zeros((1, 1), np.float16), exact


@pytest.mark.parametrize("stored", STORED)
def test_embedding_is_the_row_of_the_matrix_rounded_once(stored: str) -> None:
    embed = compile_function(text.embed_function(TEXT, weight_format(stored, BEST)), BEST)
    q, s, exact = text_weights(stored)
    for tokens in (np.arange(TEXT.vocab), np.array([159, 0, 31, 32, 31])):
        hidden = aligned_zeros((len(tokens), TEXT.hidden), np.float32)
        embed(aligned(tokens.astype(np.int32)), hidden, q, s)
        np.testing.assert_array_equal(hidden, exact[tokens].astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "target"),
    [pytest.param(s, t, id=f"{s}-{t.name}") for s in STORED for t in (BYTE_TARGETS if s == "int8" else RUNNABLE)],
)
def test_logits_follow_float64_and_keep_their_bits_in_every_batch(stored: str, target: CpuTarget) -> None:
    """Within a rounding of float32 for each column; rows alone and together, on one thread and on two."""
    acts = activation_format(TEXT, stored == "int8")
    with quick_expansion():
        function = text.head_function(TEXT, weight_format(stored, target), acts)
    head = compile_function(function, target)
    q, s, exact = text_weights(stored)
    random = np.random.default_rng(3)
    source = (random.normal(size=(40, TEXT.hidden)) * 10 ** random.uniform(-3, 3, (40, 1))).astype(np.float32)
    gains = aligned(random.normal(size=(1, TEXT.hidden)).astype(np.float32))

    def run(rows: slice, threads: int) -> list[np.ndarray]:
        """The normalised rows as they are stored, and their logits."""
        hidden = aligned(source[rows])
        scratch = scratch_arrays(text.head_scratch(TEXT, acts), rows=len(hidden))
        logits = aligned_zeros((len(hidden), TEXT.vocab), np.float32)
        head(hidden, threads, gains, q, s, *scratch, logits)
        return [*scratch, logits]

    values, scales, together = run(slice(None), 1)
    if stored == "int8":
        x = (integers_of(values, TEXT.hidden) * scales[:, ::2, None].astype(np.float64)).reshape(source.shape)
    else:
        x = values[:, : TEXT.hidden].astype(np.float64)
    bound = TEXT.hidden * 2**-24 * (np.abs(x) @ np.abs(exact).T)
    assert (np.abs(together - x @ exact.T) <= bound).all()
    assert run(slice(None), 2)[-1].tobytes() == together.tobytes()
    for rows in range(1, 21):
        for start in (0, 40 - rows):
            part = slice(start, start + rows)
            assert run(part, 1 + rows % 2)[-1].tobytes() == together[part].tobytes()
