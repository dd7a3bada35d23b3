"""GPU kernels on the CPU, one thread after the other: against NumPy, alone and in company, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T

from compiler.kernels.expansion import quick_expansion
from compiler.kernels.gpu.blocks import gpu_blocks_function, gpu_blocks_scratch
from compiler.kernels.gpu.frame import DRAW_WORDS
from compiler.kernels.gpu.linear import FEW_MOST, TILE_ROWS, gpu_multiplier, gpu_weight
from compiler.kernels.gpu.pages import pages_function
from compiler.kernels.gpu.sample import sample_function
from compiler.models.groups import Groups
from compiler.packing import pack_floats, pack_groups
from mec_apps.split_inference.node.sampling import sample_token
from tests.compiler.gpu_calls import compile_simulated
from tests.compiler.kernel_calls import aligned, aligned_zeros, scratch_arrays, small_dims

ROWS = (1, 2, FEW_MOST, FEW_MOST + 1, TILE_ROWS + 3)
VOCAB = 600


def linear_function(stored: str, outputs: int, columns: int) -> Any:
    """linear(x, rows, w, s, y)."""
    weights = gpu_weight(stored)
    R = tirx.Var("R", "int32")
    q_shape, s_shape = (1, *weights.q_shape(outputs, columns)), (1, *weights.s_shape(outputs, columns))
    with quick_expansion():

        @T.prim_func
        def linear(
            x: T.Buffer((R, columns), "float32"),
            rows: T.int32,
            w: T.Buffer(q_shape, weights.q_dtype),
            s: T.Buffer(s_shape, "float16"),
            y: T.Buffer((R, outputs), "float32"),
        ):
            T.func_attr({"global_symbol": "linear", "tirx.noalias": True})

            @T.inline
            def put(value, row, output):
                y[row, output] = value

            gpu_multiplier(weights, outputs, columns, put)(rows, x, w, s, 0)

    return linear


def packed(stored: str, outputs: int, columns: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """q, s and the plain weights as float64."""
    if stored.startswith("int"):
        bits = int(stored[3:])
        d, m = (random.normal(size=(outputs, columns // 32)).astype(np.float16) for _ in range(2))
        whole = random.integers(0, 2**bits, (outputs, columns)).astype(np.uint8)
        plain = whole * np.repeat(d.astype(np.float64), 32, 1) + np.repeat(m.astype(np.float64), 32, 1)
        return *pack_groups(Groups(whole, d, m), bits), plain
    plain = random.normal(size=(outputs, columns)).astype(np.float16).astype(np.float64)
    q = pack_floats(plain, stored)
    if stored == "bf16":
        plain = (q.astype(np.uint32) << 16).view(np.float32).transpose(0, 2, 1).reshape(outputs, columns)
    return q, np.zeros(1, np.float16), plain


@pytest.mark.parametrize(
    ("stored", "outputs", "columns"),
    [("int4", 96, 160), ("int4", 64, 1056), ("int8", 96, 32), ("f16", 32, 96), ("bf16", 64, 64), ("f32", 96, 64)],
)
def test_a_product_is_numpys_and_a_rows_bits_are_its_own(stored: str, outputs: int, columns: int) -> None:
    random = np.random.default_rng(5)
    q, s, plain = packed(stored, outputs, columns, random)
    call = compile_simulated(linear_function(stored, outputs, columns))
    x = aligned(random.normal(size=(max(ROWS), columns)).astype(np.float32))
    whole: np.ndarray | None = None
    for rows in reversed(ROWS):
        y = aligned_zeros((max(ROWS), outputs), np.float32)
        call(x, rows, aligned(q[None]), aligned(s[None]), y)
        whole = y if whole is None else whole
        assert y[:rows].tobytes() == whole[:rows].tobytes()
        assert not y[rows:].any()
    assert whole is not None
    reference = x @ plain.T
    np.testing.assert_allclose(whole, reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_no_thread_of_a_product_reads_what_another_writes_in_its_phase() -> None:
    random = np.random.default_rng(6)
    q, s, _ = packed("int4", 96, 160, random)
    x = aligned(random.normal(size=(max(ROWS), 160)).astype(np.float32))
    results = []
    for backwards in (False, True):
        call = compile_simulated(linear_function("int4", 96, 160), backwards)
        for rows in ROWS:
            y = aligned_zeros((max(ROWS), 96), np.float32)
            call(x, rows, aligned(q[None]), aligned(s[None]), y)
            results.append(y)
    for forwards, backwards in zip(results[: len(ROWS)], results[len(ROWS) :], strict=True):
        assert forwards.tobytes() == backwards.tobytes()


def test_running_backwards_finds_threads_that_talk_within_a_phase() -> None:
    @T.prim_func
    def talk(x: T.Buffer((32,), "float32"), y: T.Buffer((32,), "float32")):
        T.func_attr({"global_symbol": "talk", "tirx.noalias": True})
        for _ in T.thread_binding(1, "blockIdx.x"):
            shared = T.alloc_buffer((33,), "float32", scope="shared")
            for t in T.thread_binding(32, "threadIdx.x"):
                shared[t] = x[t]
                y[t] = shared[T.max(t - 1, 0)]

    x = aligned(np.arange(32, dtype=np.float32))
    results = [aligned_zeros((32,), np.float32) for _ in range(2)]
    compile_simulated(talk)(x, results[0])
    compile_simulated(talk, backwards=True)(x, results[1])
    assert results[0].tobytes() != results[1].tobytes()


@pytest.mark.cuda_compile
def test_no_region_of_a_block_reads_what_another_thread_or_block_writes_meanwhile() -> None:
    """Three rows of one session, the last far enough on for several shares, through two blocks with biases and norms."""
    dims = small_dims(hidden=64, heads=2, ffn=64, qkv_bias=True, qk_norm=True)
    random = np.random.default_rng(8)
    weights = {name: gpu_weight("f32") for name in ("qkv", "output", "gate_up", "down")}
    with quick_expansion():
        function = gpu_blocks_function(dims, weights)
    rows, pages, layers = 3, 20, 2
    frame = np.concatenate([[297, 298, 299], [0, 0, 0], random.permutation(pages)]).astype(np.int32)
    shapes = [(1, 64), (1, 64), (1, 128), (1, 32), (1, 32)]
    shapes += [(4, 64, 32), (1,), (2, 64, 32), (1,), (2, 64, 32), (1,), (2, 64, 32), (1,), (2, 64, 32), (1,)]
    dtypes = [np.float16 if shape == (1,) else np.float32 for shape in shapes]
    tensors = [
        aligned((random.normal(size=(layers, *shape[shape[0] == 1 and len(shape) > 1 :])) / 8).astype(dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    hidden = random.normal(size=(rows, 64)).astype(np.float32)
    rope = aligned(random.normal(size=(320, 32)).astype(np.float32))
    kv = [random.normal(size=(layers, pages, 1, *shape)).astype(np.float16) for shape in ((32, 16), (16, 32))]
    results = []
    for backwards in (False, True):
        h, keys, values = aligned(hidden), aligned(kv[0]), aligned(kv[1])
        scratch = scratch_arrays(gpu_blocks_scratch(dims), rows=rows)
        call = compile_simulated(function, backwards)
        call(h, rows, aligned(frame), 2 * rows, pages, 9, 0, layers, rope, keys, values, *tensors, *scratch)
        results.append((h.tobytes(), keys.tobytes(), values.tobytes()))
        assert np.isfinite(h).all()
        assert np.abs(h - hidden).max() > 0.01
    assert results[0] == results[1]


Sample = Callable[..., list[int]]


@pytest.fixture(scope="module", params=[False, True], ids=["forwards", "backwards"])
def sample(request: pytest.FixtureRequest) -> Sample:
    """sample(logits, temperature, nucleus, seeds, position): a token for each seed, from the same logits."""
    dims = small_dims(vocab=VOCAB + 8)
    with quick_expansion():
        call = compile_simulated(sample_function(dims), request.param)

    def run(logits: np.ndarray, temperature: float, nucleus: float, seeds: list[int], position: int = 3) -> list[int]:
        frame = np.zeros((len(seeds), DRAW_WORDS), np.uint32)
        frame[:, 1] = position
        frame[:, 2:4] = np.array([temperature, nucleus], np.float32).view(np.uint32)
        frame[:, 4] = [seed % 2**32 for seed in seeds]
        frame[:, 5] = [seed >> 32 for seed in seeds]
        rows = aligned_zeros((len(seeds), VOCAB + 8), np.float32)
        rows[:, :VOCAB], rows[:, VOCAB:] = logits, 99  # what is added to a vocabulary is never drawn
        tokens = aligned_zeros((len(seeds),), np.int32)
        call(rows, VOCAB, aligned(frame.view(np.int32).reshape(-1)), 0, len(seeds), tokens)
        return [int(token) for token in tokens]

    return run


def test_temperature_zero_takes_the_lowest_of_the_largest(sample: Sample) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        logits = random.integers(0, 40, VOCAB).astype(np.float32)
        assert sample(logits, 0.0, 1.0, [1])[0] == sample_token(logits, 0.0, 1.0, 1, 3)
    logits[[7, 300]] = np.inf
    assert sample(logits, 0.8, 0.9, [1]) == [7]


def test_a_draw_belongs_to_its_seed_and_position(sample: Sample) -> None:
    logits = np.random.default_rng(1).normal(size=VOCAB).astype(np.float32)
    drawn = sample(logits, 1.0, 1.0, list(range(200)))
    assert drawn == [sample(logits, 1.0, 1.0, [seed])[0] for seed in range(200)]
    assert len(set(drawn)) > 50
    assert drawn != sample(logits, 1.0, 1.0, list(range(200)), position=4)
    assert sample(logits, 1.0, 1.0, [2**40 + 1]) != sample(logits, 1.0, 1.0, [1])


@pytest.mark.parametrize("nucleus", [0.05, 0.3, 0.9])
def test_draws_stay_in_the_nucleus_and_reach_all_of_it(sample: Sample, nucleus: float) -> None:
    """A few likely tokens, ties among them, and a long tail; the nucleus is computed here by sorting."""
    logits = np.full(VOCAB, -4, np.float32)
    logits[[5, 90, 400, 401, 599]] = [2.0, 3.0, 2.0, 2.5, 2.0]
    weights = np.exp((logits - logits.max()).astype(np.float64))
    order = np.lexsort((np.arange(VOCAB), -weights))
    needed = int(np.searchsorted(np.cumsum(weights[order]), nucleus * weights.sum())) + 1
    expected = set(order[:needed].tolist())
    drawn = set(sample(logits, 1.0, nucleus, list(range(600))))
    assert drawn <= expected
    assert len(expected) > 5 or drawn == expected


def test_tokens_are_drawn_as_often_as_their_weights_say(sample: Sample) -> None:
    """Chi-square over 4000 draws of eight tokens at temperature 0.7; 29.9 is exceeded once in 10000 such tests."""
    logits = np.full(VOCAB, -np.inf, np.float32)
    chosen = np.arange(8) * 71
    logits[chosen] = np.linspace(-1, 1, 8)
    weights = np.exp(logits[chosen].astype(np.float64) / 0.7)
    expected = 4000 * weights / weights.sum()
    drawn = np.array([sample(logits, 0.7, 1.0, list(range(start, start + 500))) for start in range(0, 4000, 500)])
    counts = np.array([(drawn == token).sum() for token in chosen])
    assert counts.sum() == 4000
    assert ((counts - expected) ** 2 / expected).sum() < 29.9


def test_pages_that_are_gathered_and_scattered_are_the_same_pages() -> None:
    dims = small_dims(heads=2, kv_heads=2)
    random = np.random.default_rng(2)
    keys = aligned(random.normal(size=(3, 7, 2, 32, 16)).astype(np.float16))
    values = aligned(random.normal(size=(3, 7, 2, 16, 32)).astype(np.float16))
    ids = aligned(np.array([5, 0, 3], np.int32))
    moved = [aligned_zeros((3, *pages.shape[2:]), np.float16) for pages in (keys, values)]
    compile_simulated(pages_function(dims, "gather"))(keys, values, 1, ids, 3, *moved)
    assert moved[0].tobytes() == keys[1, [5, 0, 3]].tobytes()
    assert moved[1].tobytes() == values[1, [5, 0, 3]].tobytes()
    elsewhere = [aligned_zeros(pages.shape, np.float16) for pages in (keys, values)]
    compile_simulated(pages_function(dims, "scatter"))(*elsewhere, 2, ids, 3, *moved)
    assert elsewhere[0][2, [5, 0, 3]].tobytes() == moved[0].tobytes()
    assert elsewhere[1][2, [5, 0, 3]].tobytes() == moved[1].tobytes()
    assert sum(bool(page.any()) for layer in elsewhere[0] for page in layer) == 3
