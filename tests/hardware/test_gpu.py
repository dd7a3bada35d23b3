"""A stage on an NVIDIA GPU, for real. Opt-in: `python -m pytest -m gpu -s tests/hardware` compiles for the GPU that is found.

Needs the driver, the CUDA 13 runtime, nvcc, and the extras `node`, `compiler` and `dev`. It skips, and says why, elsewhere.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from compiler.build import CompiledModel as CompiledDirs
from compiler.build import compile_model
from compiler.cuda_toolchain import find_nvcc
from compiler.errors import BuildError
from compiler.targets.choice import find_gpu_target
from compiler.targets.gpu import GpuTarget
from mec_apps.cli.compile import CompiledFolders
from mec_apps.cli.local_cluster import LocalCluster, NodeOptions
from mec_apps.split_inference.generation import SamplingSettings
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.device_model import DeviceModel
from mec_apps.split_inference.node.kv_pages import KvPages
from mec_apps.split_inference.node.kv_transfer import cut_kv, spans_of, store_kv
from mec_apps.split_inference.node.stage_model import Draw, StageBatch
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.layers import LayerRange
from tests.integration.edge import Edge
from tests.split_inference.device_runs import CONTEXT, TOKENS, hidden_of, open_model

pytestmark = pytest.mark.gpu

BLOCKS = 30
WHOLE = LayerRange(0, BLOCKS)
GREEDY = SamplingSettings()
TOLERANCE = 1e-3  # of the largest magnitude of a hidden row: sums run in another order than on the CPU
DECODE_STEPS = 64


@pytest.fixture(scope="module")
def target() -> GpuTarget:
    """The row of this machine's GPU."""
    hardware = HardwareTarget.detect()
    if not hardware.gpus:
        pytest.skip("no NVIDIA GPU that its driver reports")
    gpu = hardware.gpus[0]
    row = find_gpu_target(gpu.capability, hardware.arch)
    if row is None:
        pytest.skip(f"no row of the target table is for {gpu.name} (compute capability {gpu.capability})")
    try:
        find_nvcc().check_compiles_for(row)
    except BuildError as error:
        pytest.skip(str(error))
    return row


@dataclass(frozen=True)
class Pair:
    """The default model on both: all layers, embedding and head."""

    quantisation: str
    cpu: CompiledModel
    device: DeviceModel
    dirs: CompiledDirs


@pytest.fixture(scope="module", params=["int4", "f16"])
def pair(request: pytest.FixtureRequest, target: GpuTarget) -> Pair:
    dirs = compile_model("smollm2", request.param, target.name)
    device = open_model(dirs)
    device.load_stage(WHOLE, is_first=True, is_last=True)
    return Pair(request.param, open_model(compile_model("smollm2", request.param)), device, dirs)


def token_of(model: CompiledModel | DeviceModel, content: np.ndarray, position: int, draw: SamplingSettings) -> int:
    """The token after `content`, which starts at `position`, all in one batch of slot 1."""
    positions = np.arange(position, position + len(content), dtype=np.int32)
    draws = [Draw(len(content) - 1, position + len(content), draw)]
    slots = np.full(len(content), 1, np.int32)
    batch = StageBatch(WHOLE, content.astype(np.int32).tobytes(), True, True, positions, slots, draws)
    return model.run(batch).tokens[0]


def decode(model: CompiledModel | DeviceModel, steps: int) -> tuple[list[int], list[float]]:
    """Greedy tokens after TOKENS[:100], and the seconds that each took."""
    tokens, seconds = [token_of(model, TOKENS[:100], 0, GREEDY)], []
    for step in range(steps):
        started = time.perf_counter()
        tokens.append(token_of(model, np.array(tokens[-1:]), 100 + step, GREEDY))
        seconds.append(time.perf_counter() - started)
    return tokens, seconds


def test_hidden_rows_and_tokens_agree_with_the_cpu(pair: Pair) -> None:
    on_cpu, on_gpu = (hidden_of(model, WHOLE, 0, 300) for model in (pair.cpu, pair.device))
    assert np.abs(on_cpu - on_gpu).max() < TOLERANCE * np.abs(on_cpu).max()
    draws = [Draw(i, i + 1, GREEDY) for i in range(300)]
    positions = np.arange(300, dtype=np.int32)
    batch = StageBatch(WHOLE, TOKENS.tobytes(), True, True, positions, np.zeros(300, np.int32), draws)
    same = sum(a == b for a, b in zip(pair.cpu.run(batch).tokens, pair.device.run(batch).tokens, strict=True))
    assert same >= 297  # near ties may fall either way


def test_a_rows_bits_do_not_depend_on_its_company(pair: Pair) -> None:
    """Prefill in one piece, in pieces, and decode steps of three sessions in one batch."""
    whole = hidden_of(pair.device, WHOLE, 0, 300)
    for slot, stop in ((1, 17), (2, 130), (3, 280)):
        start = 0
        for size in (1, 3, 13, 40, 300):
            end = min(stop, start + size)
            if end > start:
                part = hidden_of(pair.device, WHOLE, start, end, slot)
                assert part.tobytes() == whole[start:end].tobytes()
            start = end
    positions = np.array([17, 130, 280], np.int32)
    batch = StageBatch(WHOLE, TOKENS[positions].tobytes(), True, False, positions, np.array([1, 2, 3], np.int32))
    together = pair.device.run(batch).hidden
    assert together is not None
    assert together.tobytes() == whole[positions].tobytes()


def test_a_draw_belongs_to_its_seed_and_follows_the_nucleus(pair: Pair) -> None:
    drawn = [token_of(pair.device, TOKENS[:20], 0, SamplingSettings(1.0, 0.9, seed)) for seed in range(40)]
    again = [token_of(pair.device, TOKENS[:20], 0, SamplingSettings(1.0, 0.9, seed)) for seed in range(40)]
    assert drawn == again
    assert len(set(drawn)) > 3
    greedy = token_of(pair.device, TOKENS[:20], 0, GREEDY)
    assert {token_of(pair.device, TOKENS[:20], 0, SamplingSettings(1.0, 1e-6, seed)) for seed in range(10)} == {greedy}


def test_kv_moves_to_the_cpu_and_back(pair: Pair) -> None:
    reference = hidden_of(pair.cpu, WHOLE, 0, 60)
    for source, other in ((pair.cpu, pair.device), (pair.device, pair.cpu)):
        books = [KvPages(np.zeros_like(model.page_table), 100, BLOCKS, 16, CONTEXT) for model in (source, other)]
        held = books[0].extend(7, WHOLE, 0, 50)
        source.page_table[1, : len(held.pages)] = held.pages
        hidden_of(source, WHOLE, 0, 50, slot=1)
        books[0].mark_valid(7, WHOLE, 50)
        for span in spans_of(source, WHOLE, 0, 50):
            piece = cut_kv(source, books[0], 7, span)
            store_kv(other, books[1], piece)
        moved = books[1].extend(7, WHOLE, 50, 10)
        other.page_table[2, : len(moved.pages)] = moved.pages
        after = hidden_of(other, WHOLE, 50, 60, slot=2)
        assert np.abs(after - reference[50:]).max() < TOLERANCE * np.abs(reference).max()


def test_decoding_is_timed_and_says_the_same_as_the_cpu(pair: Pair, target: GpuTarget) -> None:
    on_cpu, _ = decode(pair.cpu, 16)
    tokens, seconds = decode(pair.device, DECODE_STEPS)
    assert tokens[:8] == on_cpu[:8]
    position = np.array([100], np.int32)
    batch = StageBatch(WHOLE, TOKENS[:1].tobytes(), True, False, position, np.full(1, 1, np.int32))
    regions = pair.device.time_regions(batch)
    started = time.perf_counter()
    hidden_of(pair.device, WHOLE, 0, 300)
    prefill_s = time.perf_counter() - started
    lines = [
        f"{target.name} ({pair.device.target}), {pair.quantisation}: {1 / statistics.median(seconds):.0f} tok/s decode at "
        f"position 100, {300 / prefill_s:.0f} tok/s prefill",
        *(f"  {name:16} {spent * 1e6:8.1f} us over {BLOCKS} blocks" for name, spent in regions.items()),
    ]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert statistics.median(seconds) > 0


@pytest.mark.asyncio(loop_scope="session")
async def test_a_gpu_node_answers_in_a_chain_with_a_cpu_node(pair: Pair) -> None:
    cpu_dirs = compile_model("smollm2", pair.quantisation)
    folders = CompiledFolders(cpu_dirs.package_dir, cpu_dirs.artefact_dir, built=False)
    nodes = [NodeOptions("edge-1"), NodeOptions("gpu", artefact=pair.dirs.artefact_dir)]
    async with LocalCluster(folders, nodes, manual=True, context=256) as cluster:
        edge = Edge(cluster)
        await cluster.wait_for_plan()
        await edge.apply([("edge-1", 0, 30)])
        on_cpu = await edge.answer(16)
        await edge.apply([("edge-1", 0, 12), ("gpu", 12, 30)])
        mixed, done = await edge.answer_through(16, 5, lambda: edge.apply([("gpu", 0, 18), ("edge-1", 18, 30)]))
        assert mixed == on_cpu
        assert done.outcome == "committed"
        await edge.drained()
