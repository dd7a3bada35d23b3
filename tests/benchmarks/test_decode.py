"""The parts of `mec bench decode` that judge, and its cases on a tiny model. Times are not judged here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from compiler.build import compile_model
from mec_apps.split_inference.model_package import ModelPackage
from tests.benchmarks import decode
from tests.benchmarks.costs import measure_costs
from tests.benchmarks.random_model import Shape, write_random_model
from tests.benchmarks.rates import Rates

SHAPE = Shape(2, 64, 2, 1, 32, 96, 320, 512, 10000.0)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("random") / "random.gguf"
    write_random_model(path, SHAPE)
    return path


def rates_of(**samples: float) -> Rates:
    rates = Rates()
    for name, rate in samples.items():
        rates.add(name, [rate, rate / 2])
    return rates


def test_metrics_are_the_median_and_the_best() -> None:
    rates = Rates()
    rates.add("decode", [100.0, 300.0, 110.0])
    assert rates.metrics() == {"decode_tokens_per_s": 110.0, "decode_best_tokens_per_s": 300.0}


def test_ratios_divide_the_best_by_the_best_of_what_was_measured() -> None:
    rates = rates_of(decode_context_16=300, prefill_128=1000, decode_batch_8=900, llama_cpp_q4_0_decode=100)
    assert decode._ratios(rates) == {"decode_over_llama_cpp": 3.0, "batch_8_over_1": 3.0}


def test_a_loss_that_grows_with_the_context_deviates_from_a_line() -> None:
    def ratios(seconds: dict[int, float]) -> dict[str, float]:
        return decode._ratios(rates_of(**{f"decode_context_{n}": 1 / s for n, s in seconds.items()}))

    line = {n: 0.01 + n * 1e-6 for n in (16, 1000, 2000)}
    assert ratios(line)["context_loss_deviation"] == pytest.approx(0, abs=1e-9)
    assert ratios(line | {2000: 0.01 + 3e-3})["context_loss_deviation"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("amx", "bound"), [(False, 2.0), (True, 4.0)])
def test_criteria_are_those_of_what_was_measured(monkeypatch: pytest.MonkeyPatch, amx: bool, bound: float) -> None:
    monkeypatch.setattr(decode, "has_amx", lambda: amx)
    criteria = decode._criteria({"prefill_128_over_llama_cpp": 3.0, "second_start_s": 0.4}, step_bytes=1)
    assert criteria == [
        {"name": "prefill_128_over_llama_cpp", "value": 3.0, "bound": bound, "ok": not amx},
        {"name": "second_start_s", "value": 0.4, "bound": 0.3, "ok": False},
    ]


def test_a_random_model_has_weights_of_the_expected_size(random_model: Path) -> None:
    tensors = {tensor.name: tensor for tensor in GGUFReader(random_model).tensors}
    assert tensors["blk.1.ffn_down.weight"].tensor_type.name == "Q4_0"
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0"
    scale = tensors["blk.1.ffn_down.weight"].data.reshape(-1, 18)[:, :2].copy().view(np.float16)
    assert float(scale[0, 0]) == pytest.approx(1 / (4.6 * SHAPE.ffn**0.5), rel=1e-3)


@pytest.mark.slow
def test_every_case_that_the_context_has_room_for_runs(random_model: Path) -> None:
    dirs = compile_model(str(random_model), "int4")
    ours = decode.Ours(ModelPackage.open(dirs.package_dir), dirs, threads=1)
    names = []
    for case in ours.cases():
        case.step()
        names.append(case.name)
    assert names == [
        *("prefill_128", "prefill_512", "decode_context_16", "decode_context_256"),
        *(f"decode_batch_{batch}" for batch in decode.BATCHES),
        *(f"blocks_rows_{rows}" for rows in decode.LINEAR_ROWS),
    ]


@pytest.mark.slow
@pytest.mark.thorough
def test_costs_are_measured_in_processes_of_their_own(random_model: Path) -> None:
    costs = measure_costs(str(random_model), "int4", threads=1)
    assert set(costs) == {"cold_compile_s", "second_start_s", "first_token_s", "node_overhead_mb"}
    assert all(value > 0 for value in costs.values())
    assert costs["first_token_s"] >= costs["second_start_s"]
