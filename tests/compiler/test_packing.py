"""Packing loses nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.models.groups import Groups
from compiler.packing import pack_floats, pack_groups, unpack_groups


def random_groups(seed: int, strips: int, groups: int, bits: int) -> Groups:
    random = np.random.default_rng(seed)
    rows, columns = strips * 32, groups * 32
    q = random.integers(0, 2**bits, (rows, columns)).astype(np.uint8)
    d, m = (random.normal(size=(rows, groups)).astype(np.float16) for _ in range(2))
    return Groups(q, d, m)


@settings(derandomize=True, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 4), st.sampled_from([4, 8]))
def test_unpacking_gives_back_what_was_packed(seed: int, strips: int, groups: int, bits: int) -> None:
    before = random_groups(seed, strips, groups, bits)
    q, s = pack_groups(before, bits)
    assert q.shape == (strips, groups, bits, 2, 16)
    assert s.shape == (strips, groups, 4, 16)
    after = unpack_groups(q, s)
    for name in ("q", "d", "m"):
        assert getattr(after, name).tobytes() == getattr(before, name).tobytes()


def test_a_word_holds_four_columns_of_one_row() -> None:
    groups = random_groups(1, 1, 1, 8)
    q, _ = pack_groups(groups, 8)
    assert q[0, 0, 3, 1, 5] == groups.q[21, 12:16].copy().view(np.uint32)[0]


def test_floats_are_packed_by_column() -> None:
    weights = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    packed = pack_floats(weights)
    assert packed.shape == (2, 32, 32)
    assert packed[1, 7, 3] == weights[35, 7]
