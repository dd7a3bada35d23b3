"""What llama-bench prints becomes cases; the fastest of them is the one to beat."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.benchmarks.machine import BenchmarkError
from tests.benchmarks.peers import LINEAR_ROWS, LlamaCpp, fastest_llama_cpp, parse_llama_bench, torch_linears
from tests.benchmarks.rates import Rates

PROGRAM, MODEL = os.environ.get("MEC_LLAMA_BENCH"), os.environ.get("MEC_LLAMA_MODEL")


def printed(kind: str, *tests: tuple[int, int, list[float]]) -> str:
    return json.dumps(
        [{"model_type": f"llama 1B {kind}", "n_prompt": p, "n_gen": g, "samples_ts": s} for p, g, s in tests]
    )


@pytest.mark.parametrize(
    ("named", "kind"), [("Q4_0", "q4_0"), ("(guessed) Q8_0", "q8_0"), ("Q4_K - Medium", "q4_k"), ("F16", "f16")]
)
def test_samples_are_told_apart_by_kind_of_weights_and_by_case(named: str, kind: str) -> None:
    cases = parse_llama_bench(printed(named, (128, 0, [640.0, 650.0]), (0, 64, [120.0])))
    assert cases == {f"{kind}_prefill_128": [640.0, 650.0], f"{kind}_decode": [120.0]}


@pytest.mark.parametrize("text", ["", "[1]", '[{"n_gen": 1}]', printed("unknown", (1, 0, [1.0]))])
def test_other_output_is_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="unexpected"):
        parse_llama_bench(text)


def test_decoding_is_compared_with_four_bits_and_a_prompt_with_any() -> None:
    rates = Rates()
    for case, rate in {"q4_0_decode": 120.0, "q8_0_decode": 130.0, "q4_0_prefill_128": 400.0}.items():
        rates.add(f"llama_cpp_{case}", [rate])
    rates.add("llama_cpp_q8_0_prefill_128", [600.0])
    assert fastest_llama_cpp(rates, "decode") == "llama_cpp_q4_0_decode"
    assert fastest_llama_cpp(rates, "prefill_128") == "llama_cpp_q8_0_prefill_128"
    assert fastest_llama_cpp(rates, "prefill_512") is None


def test_torch_multiplies_every_count_of_rows() -> None:
    pytest.importorskip("torch")
    found = torch_linears(1, 1, [(32, 64)], seconds=0.01)
    assert set(found) == {f"{dtype}_linears_rows_{n}" for dtype in ("float32", "bfloat16") for n in LINEAR_ROWS}
    assert all(rate > 0 for samples in found.values() for rate in samples)


@pytest.mark.slow
@pytest.mark.skipif(not (PROGRAM and MODEL), reason="MEC_LLAMA_BENCH and MEC_LLAMA_MODEL name no llama.cpp")
def test_llama_cpp_is_measured() -> None:
    rates = Rates()
    LlamaCpp(Path(str(PROGRAM)), (Path(str(MODEL)),)).measure(rates, 1)
    assert {name.rpartition("_")[2] for name in rates.names()} == {"128", "512", "decode"}
