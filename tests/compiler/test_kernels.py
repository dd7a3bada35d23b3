"""The kernels against torch, and the promise that a row's bits depend on nothing but the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.build import CompiledModel as CompiledDirs
from compiler.models.gguf_file import GgufModel
from mec_apps.split_inference.node.compiled_model import CompiledModel
from tests.compiler.running import open_model, run_rows, run_tokens
from tests.compiler.torch_reference import TorchReference

pytestmark = pytest.mark.slow

BLOCKS = 4
TOKENS = [int(t) for t in np.random.default_rng(11).integers(0, 288, 150)]


@pytest.fixture(scope="module")
def tiny(compile_tiny: Callable[..., CompiledDirs]) -> CompiledModel:
    return open_model(compile_tiny())


@pytest.fixture(scope="module")
def expected(tiny: CompiledModel) -> np.ndarray:
    """Hidden rows of TOKENS, run in one piece."""
    return run_tokens(tiny, TOKENS, blocks=BLOCKS)


@pytest.mark.parametrize(("quantisation", "bound"), [("f32", 1e-4), ("int8", 0.03), ("int4", 0.25)])
def test_logits_follow_the_reference(
    compile_tiny: Callable[..., CompiledDirs], tiny_model_file: Path, quantisation: str, bound: float
) -> None:
    model = open_model(compile_tiny(quantisation))
    logits = model.head(run_tokens(model, TOKENS, blocks=BLOCKS))
    reference = TorchReference(GgufModel(tiny_model_file, "tiny")).logits(TOKENS)
    error = np.sqrt(((logits - reference) ** 2).mean()) / reference.std()
    assert error < bound


@settings(derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, BLOCKS - 1)).map(sorted),
    slot=st.integers(0, 3),
)
def test_chunks_and_cuts_change_no_bit(
    tiny: CompiledModel, expected: np.ndarray, chunks: list[int], cuts: list[int], slot: int
) -> None:
    start = 0
    for size in chunks:
        part = TOKENS[start : start + size]
        if part:
            hidden = run_tokens(tiny, part, start=start, slot=slot, cuts=cuts, blocks=BLOCKS)
            assert hidden.tobytes() == expected[start : start + len(part)].tobytes()
        start += size


@settings(derandomize=True, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 30), min_size=4, max_size=4), rounds=st.integers(1, 3))
def test_company_changes_no_bit(tiny: CompiledModel, expected: np.ndarray, lengths: list[int], rounds: int) -> None:
    """Four sessions of different lengths share every batch; each sees the same tokens."""
    starts = [0] * 4
    for _ in range(rounds):
        rows = [(slot, starts[slot] + i) for i in range(30) for slot in range(4) if i < lengths[slot]]
        slots, positions = (np.array(column) for column in zip(*rows, strict=True))
        hidden = run_rows(tiny, [TOKENS[p] for p in positions], positions, slots, blocks=BLOCKS)
        assert hidden.tobytes() == expected[positions].tobytes()
        starts = [start + length for start, length in zip(starts, lengths, strict=True)]


def test_threads_change_no_bit(compile_tiny: Callable[..., CompiledDirs], expected: np.ndarray) -> None:
    for threads in (1, 3):
        model = open_model(compile_tiny(), threads=threads)
        assert run_tokens(model, TOKENS, blocks=BLOCKS).tobytes() == expected.tobytes()
        logits = model.head(expected).copy()
        assert model.head(expected[77:78]).tobytes() == logits[77:78].tobytes()


def test_a_target_without_avx512_gives_the_same_bits(
    compile_tiny: Callable[..., CompiledDirs], expected: np.ndarray
) -> None:
    model = open_model(compile_tiny("int4", "x86-64-v3"))
    assert run_tokens(model, TOKENS, blocks=BLOCKS).tobytes() == expected.tobytes()


def test_a_target_that_cannot_fuse_is_close_and_batch_invariant(
    compile_tiny: Callable[..., CompiledDirs], expected: np.ndarray
) -> None:
    model = open_model(compile_tiny("int4", "x86-64-v2"), threads=1)
    whole = run_tokens(model, TOKENS, blocks=BLOCKS)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=0.02 * float(expected.std()))
    for start, size in ((0, 1), (1, 40), (41, 7), (48, 102)):
        part = run_tokens(model, TOKENS[start : start + size], start=start, slot=2, cuts=[1, 3], blocks=BLOCKS)
        assert part.tobytes() == whole[start : start + size].tobytes()


@pytest.mark.parametrize("quantisation", ["int8", "f32"])
def test_other_quantisations_are_batch_invariant_too(
    compile_tiny: Callable[..., CompiledDirs], quantisation: str
) -> None:
    model = open_model(compile_tiny(quantisation))
    together = run_tokens(model, TOKENS[:40], blocks=BLOCKS)
    alone = [run_tokens(model, [token], start=i, slot=1, blocks=BLOCKS) for i, token in enumerate(TOKENS[:40])]
    assert np.concatenate(alone).tobytes() == together.tobytes()


def test_kv_of_a_session_can_be_copied_to_other_pages(tiny: CompiledModel, expected: np.ndarray) -> None:
    run_tokens(tiny, TOKENS[:100], slot=0, blocks=BLOCKS)
    for source, destination in zip(tiny.page_table[0][:7], tiny.page_table[2][:7], strict=True):
        tiny.keys[:, destination] = tiny.keys[:, source]
        tiny.values[:, destination] = tiny.values[:, source]
    hidden = run_tokens(tiny, TOKENS[100:], start=100, slot=2, blocks=BLOCKS)
    assert hidden.tobytes() == expected[100:].tobytes()
