"""A device's model, run for real with a SIMULATED GPU: its kernels compiled for the CPU, and the CPU as the device."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.build import compile_model
from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.generation import SamplingSettings
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.artefact_check import ArtefactError
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.device_model import DeviceModel
from mec_apps.split_inference.node.kv_pages import KvPages, KvRefusal
from mec_apps.split_inference.node.kv_transfer import KvSpan, cut_kv, spans_of, store_kv
from mec_apps.split_inference.node.load_model import load_model
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.stage_model import Draw, StageBatch
from mec_platform.domain.layers import LayerRange
from tests.compiler.conftest import BLOCKS, VOCAB, write_tiny_model
from tests.compiler.families import VOCAB as FAMILY_VOCAB
from tests.compiler.families import make_model, reference_logits, save_folder
from tests.split_inference.device_runs import CONTEXT, SESSIONS, TOKENS, hidden_of, open_model

pytestmark = pytest.mark.slow

WHOLE = LayerRange(0, BLOCKS)
GREEDY = SamplingSettings()
# float32 activations here, 15-bit integers on the CPU: of the largest magnitude of a hidden row.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def cpu(model_file: Path) -> CompiledModel:
    model = open_model(compile_model(str(model_file), "int4"))
    assert isinstance(model, CompiledModel)
    return model


@pytest.fixture(scope="module")
def device(model_file: Path) -> DeviceModel:
    model = open_model(compile_model(str(model_file), "int4", "simulated-gpu"))
    assert isinstance(model, DeviceModel)
    model.load_stage(WHOLE, is_first=True, is_last=True)
    return model


@pytest.fixture(scope="module")
def expected(device: DeviceModel) -> np.ndarray:
    """Hidden rows of TOKENS, run in one piece."""
    return hidden_of(device, WHOLE, 0, len(TOKENS), slot=3)


@pytest.mark.parametrize("quantisation", ["int4", "f32"])
def test_hidden_rows_and_tokens_agree_with_the_cpu(model_file: Path, quantisation: str) -> None:
    models = [open_model(compile_model(str(model_file), quantisation, target)) for target in (None, "simulated-gpu")]
    rows, tokens = [], []
    for model in models:
        model.load_stage(WHOLE, is_first=True, is_last=True)
        rows.append(hidden_of(model, WHOLE, 0, 300))
        draws = [Draw(i, i + 1, GREEDY) for i in range(300)]
        positions = np.arange(300, dtype=np.int32)
        batch = StageBatch(WHOLE, TOKENS.tobytes(), True, True, positions, np.full(300, 1, np.int32), draws)
        tokens.append(model.run(batch).tokens)
    assert np.abs(rows[0] - rows[1]).max() < TOLERANCE * np.abs(rows[0]).max()
    assert sum(a == b for a, b in zip(*tokens, strict=True)) >= 298  # near ties may fall either way


@settings(derandomize=True, max_examples=12)
@given(
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, BLOCKS - 1)).map(sorted),
    slot=st.integers(0, 2),
)
def test_chunks_and_cuts_change_no_bit(
    device: DeviceModel, expected: np.ndarray, chunks: list[int], cuts: list[int], slot: int
) -> None:
    start = 0
    for size in chunks:
        hidden: np.ndarray | None = None
        for first, stop in zip([0, *cuts], [*cuts, BLOCKS], strict=True):
            content = None if hidden is None else hidden.tobytes()
            hidden = hidden_of(device, LayerRange(first, stop), start, start + size, slot, content)
        assert hidden is not None
        assert hidden.tobytes() == expected[start : start + size].tobytes()
        start += size


def test_company_changes_no_bit(device: DeviceModel, expected: np.ndarray) -> None:
    """Decode steps of three sessions at different positions, in one batch."""
    hidden_of(device, WHOLE, 0, 280, slot=0)
    hidden_of(device, WHOLE, 0, 17, slot=1)
    hidden_of(device, WHOLE, 0, 130, slot=2)
    positions = np.array([280, 17, 130], np.int32)
    batch = StageBatch(WHOLE, TOKENS[positions].tobytes(), True, False, positions, np.array([0, 1, 2], np.int32))
    result = device.run(batch).hidden
    assert result is not None
    assert result.tobytes() == expected[positions].tobytes()


def test_a_frame_is_one_copy_in_and_one_out(device: DeviceModel) -> None:
    zero = np.zeros(1, np.int32)
    first = StageBatch(WHOLE, TOKENS[:1].tobytes(), True, False, zero, zero)
    middle = StageBatch(
        LayerRange(1, 3), bytes(96 * 4 * 5), False, False, np.arange(5, dtype=np.int32), np.repeat(zero, 5)
    )
    last = StageBatch(WHOLE, bytes(96 * 4), False, True, zero, zero, [Draw(0, 1, SamplingSettings(0.7, 0.9, 5))])
    silent = replace(last, draws=())
    for batch, out in ((first, 1), (middle, 1), (last, 1), (silent, 0)):
        before = (device.memory.uploads, device.memory.downloads)
        device.run(batch)
        assert (device.memory.uploads - before[0], device.memory.downloads - before[1]) == (1, out)


def test_a_layer_is_uploaded_once_and_freed_when_unused(model_file: Path) -> None:
    model = open_model(compile_model(str(model_file), "int4", "simulated-gpu"))
    assert model.measurable(WHOLE) is None
    model.load_stage(LayerRange(0, 2), is_first=False, is_last=False)
    loaded = model.memory.uploads
    model.load_stage(LayerRange(0, 2), is_first=False, is_last=False)
    assert model.memory.uploads == loaded
    model.load_stage(WHOLE, is_first=False, is_last=False)
    assert model.measurable(LayerRange(1, 3)) == LayerRange(1, 3)
    model.release_layers(LayerRange(0, 3))
    assert model.measurable(LayerRange(0, 2)) == LayerRange(3, 4)
    with pytest.raises(ValueError, match="layer 2 is not loaded"):
        model.read_pages(2, [0])
    with pytest.raises(ValueError, match="layer 0 is not loaded"):
        hidden_of(model, WHOLE, 0, 1)


def test_kv_of_a_released_layer_is_wiped_on_the_device(model_file: Path) -> None:
    model = open_model(compile_model(str(model_file), "int4", "simulated-gpu"))
    model.load_stage(WHOLE, is_first=False, is_last=False)
    hidden_of(model, WHOLE, 0, 20)
    run, place = model._layers.place(1)
    assert place == 1
    count, *page = len(run.layers), *model._layers._key_page
    keys = np.empty((count, *page), np.float16)
    model.memory.get(run.keys, keys)
    assert keys[0].any()
    assert keys[1].any()
    model.release_layers(LayerRange(1, 2))
    model.memory.get(run.keys, keys)
    assert keys[0].any()
    assert not keys[1].any()


def test_kv_moves_between_a_cpu_and_a_device(cpu: CompiledModel, device: DeviceModel) -> None:
    """A session starts on one, goes to the other with its KV and on to the first again: the rows stay what they were."""
    reference = hidden_of(cpu, WHOLE, 0, 60, slot=0)
    for source, target in ((cpu, device), (device, cpu)):
        books = [KvPages(np.zeros_like(m.page_table), 100, BLOCKS, 16, CONTEXT) for m in (source, target)]
        held = books[0].extend(7, WHOLE, 0, 50)
        source.page_table[1] = 0
        source.page_table[1, : len(held.pages)] = held.pages
        hidden_of(source, WHOLE, 0, 50, slot=1)
        books[0].mark_valid(7, WHOLE, 50)
        for span in spans_of(source, WHOLE, 0, 50):
            piece = cut_kv(source, books[0], 7, span)
            store_kv(target, books[1], piece)
        moved = books[1].extend(7, WHOLE, 50, 10)
        for layer in WHOLE:
            assert source.read_pages(layer, held.pages[:3]) == target.read_pages(layer, moved.pages[:3])
        target.page_table[2, : len(moved.pages)] = moved.pages
        after = hidden_of(target, WHOLE, 50, 60, slot=2)
        assert np.abs(after - reference[50:]).max() < TOLERANCE * np.abs(reference).max()


def test_kv_of_a_layer_that_is_not_loaded_is_refused(cpu: CompiledModel, model_file: Path) -> None:
    model = open_model(compile_model(str(model_file), "int4", "simulated-gpu"))
    books = [KvPages(np.zeros_like(cpu.page_table), 100, BLOCKS, 16, CONTEXT) for _ in range(2)]
    books[0].extend(7, WHOLE, 0, 20)
    books[0].mark_valid(7, WHOLE, 20)
    piece = cut_kv(cpu, books[0], 7, KvSpan(WHOLE, 0, 16))
    with pytest.raises(KvRefusal, match="not loaded on this node") as refused:
        store_kv(model, books[1], piece)
    assert refused.value.code is Refusal.GAP


def test_regions_and_the_head_are_timed(device: DeviceModel) -> None:
    zero = np.zeros(1, np.int32)
    seconds = device.time_regions(StageBatch(WHOLE, TOKENS[:1].tobytes(), True, False, zero, zero))
    assert list(seconds) == device.regions
    assert sum(seconds.values()) > 0
    assert device.time_head() > 0


def test_what_does_not_fit_is_refused(device: DeviceModel, model_file: Path) -> None:
    zero = np.zeros(1, np.int32)
    good = StageBatch(WHOLE, TOKENS[:1].tobytes(), True, False, zero, zero)
    for bad, reason in (
        (replace(good, content=np.array([VOCAB], np.int32).tobytes()), "tokens must be in"),
        (replace(good, positions=zero + CONTEXT), "positions must be in"),
        (replace(good, slots=zero + SESSIONS), "slots must be in"),
        (replace(good, content=b""), "0 bytes of content"),
        (replace(good, positions=np.arange(321), slots=np.zeros(321, np.int32)), "1 to 320 rows, not 321"),
        (replace(good, layers=LayerRange(2, 9)), "layer 4 is not loaded"),
    ):
        with pytest.raises(ValueError, match=reason):
            device.run(bad)
    with pytest.raises(ValueError, match="more than the kernels can index"):
        open_model(compile_model(str(model_file), "int4", "simulated-gpu"), kv_pages=10**7)


def test_a_cuda_artefact_on_a_machine_without_a_gpu_is_one_line(model_file: Path, tmp_path: Path) -> None:
    """The simulated artefact with a manifest that says CUDA: what is refused is refused before the library is loaded."""
    dirs = compile_model(str(model_file), "int4", "simulated-gpu")
    folder = tmp_path / "artefact"
    shutil.copytree(dirs.artefact_dir, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"device": "cuda", "gpu": "9.0", "target": "h100"}))
    package = ModelPackage.open(dirs.package_dir)
    limits = {"threads": 1, "kv_pages": 8, "max_sessions": 2, "max_rows": 8, "context": 64}
    with pytest.raises(ArtefactError, match=r"compiled for h100 \(x86_64, GPU sm_90\); .* has no GPU that can be used"):
        load_model(package, folder, read_machine("edge-1"), **limits)
    turing = replace(read_machine("edge-1"), gpus=("7.5",))
    with pytest.raises(ArtefactError, match=r"GPU sm_90\); edge-1 is .* GPU sm_75\) and has no such GPU"):
        load_model(package, folder, turing, **limits)


@pytest.mark.cuda_compile
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_families_with_biases_and_with_norms_of_heads_say_what_transformers_says(family: str, tmp_path: Path) -> None:
    """Their widths, head widths and vocabulary are padded, and one has its embedding for a head."""
    reference = make_model(family)
    tokens = np.random.default_rng(0).integers(0, FAMILY_VOCAB, 60).astype(np.int32)
    dirs = compile_model(str(save_folder(reference, tmp_path / family)), "f32", "simulated-gpu")
    model = open_model(dirs, max_rows=60, context=60)
    model.load_stage(LayerRange(0, 2), is_first=True, is_last=True)
    positions = np.arange(60, dtype=np.int32)
    draws = [Draw(i, i + 1, GREEDY) for i in range(60)]
    batch = StageBatch(LayerRange(0, 2), tokens.tobytes(), True, True, positions, np.zeros(60, np.int32), draws)
    assert model.run(batch).tokens == reference_logits(reference, tokens.tolist()).argmax(axis=1).tolist()
