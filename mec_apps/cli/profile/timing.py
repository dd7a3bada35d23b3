"""Times a step of a compiled model part by part, beside the machine's limits measured in the same minute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compiler.limits import LimitKernels, Limits
from mec_apps.cli.profile.work import Work, block_work, head_work
from mec_apps.cli.requests import CliError
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.sampling import sample_token
from mec_platform.domain.kernel_contract import PAGE_TOKENS
from mec_platform.domain.layers import LayerRange

_SECONDS = 0.4
_MIN_CALLS = 5
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Part:
    """An operation over all blocks, or what happens once a step. Shares where its least work is known."""

    operation: str
    us: float
    limit_share: float | None = None
    bound_by: str | None = None


@dataclass(frozen=True, slots=True)
class StepProfile:
    """`rows` tokens after `context` tokens; one row's logits and sample."""

    model: str
    quantisation: str
    target: str
    threads: int
    rows: int
    context: int
    limits: Limits
    parts: tuple[Part, ...]

    @property
    def total_us(self) -> float:
        """The whole step."""
        return sum(part.us for part in self.parts)


def measure_step(package_dir: Path, artefact_dir: Path, threads: int, rows: int, context: int) -> StepProfile:
    """Medians of calls of each part, `rows` tokens of one session.

    Raises:
        CliError: the model cannot take as many tokens.
    """
    package = ModelPackage.open(package_dir)
    tokens = context + rows
    if tokens > package.spec.context:
        raise CliError(f"{context} + {rows} tokens are more than the {package.spec.context} that the model takes")
    runtime = CompiledModel(
        package,
        artefact_dir,
        threads=threads,
        kv_pages=-(-tokens // PAGE_TOKENS),
        max_sessions=1,
        max_rows=max(rows, _CHUNK),
        context=tokens,
    )
    runtime.page_table[:] = np.arange(runtime.page_table.size)
    for start in range(0, context, _CHUNK):  # KV pages that were never written would all be one page in the cache
        _run(runtime, package, np.arange(start, min(start + _CHUNK, context)))
    limit_kernels = LimitKernels(threads, package.shape.block_bytes * package.spec.blocks + package.shape.head_bytes)
    before = limit_kernels.measure()
    times = _time_parts(runtime, package, np.arange(context, tokens))
    limits = before.best(limit_kernels.measure())
    work = _work(package, rows, context)
    return StepProfile(
        package.spec.name,
        package.quantisation,
        runtime.target,
        threads,
        rows,
        context,
        limits,
        tuple(_against_limits(name, us, work.get(name), limits) for name, us in times.items()),
    )


def _run(runtime: CompiledModel, package: ModelPackage, positions: np.ndarray) -> np.ndarray:
    hidden = runtime.embed(positions % package.spec.vocab)
    return runtime.run_blocks(package.layers, hidden, positions, np.zeros_like(positions))


def _time_parts(runtime: CompiledModel, package: ModelPackage, positions: np.ndarray) -> dict[str, float]:
    """Microseconds by part."""
    tokens, slots = positions % package.spec.vocab, np.zeros_like(positions)
    hidden = runtime.embed(tokens)
    logits = runtime.head(hidden[-1:])[0].copy()
    return {
        "embed": _median_us(lambda: runtime.embed(tokens)),
        **_time_blocks(runtime, package.layers, lambda layers: runtime.run_blocks(layers, hidden, positions, slots)),
        "head": _median_us(lambda: runtime.head(hidden[-1:])),
        "sample": _median_us(lambda: sample_token(logits, 0.0, 1.0, 0, 0)),
    }


def _time_blocks(runtime: CompiledModel, layers: LayerRange, run: Callable[[LayerRange], Any]) -> dict[str, float]:
    """Microseconds of a call over `layers`, by the regions of its kernels, and outside them.

    `waiting` is what thread 0 spends at barriers, for the others and for the barriers themselves: it grows with every
    block. `call` is what a call costs whatever its blocks.
    """
    regions, rest = _time_regions(runtime, partial(run, layers))
    _, rest_of_one = _time_regions(runtime, partial(run, LayerRange(layers.start, layers.start + 1)))
    per_block = (rest - rest_of_one) / max(1, len(layers) - 1)
    waiting = min(rest, max(0.0, per_block * len(layers)))
    return {**regions, "waiting": round(waiting, 2), "call": round(rest - waiting, 2)}


def _time_regions(runtime: CompiledModel, call: Callable[[], Any]) -> tuple[dict[str, float], float]:
    """Microseconds of thread 0 in every region, and of the call outside them; means, scaled to the median call."""
    whole = _median_us(call)
    runtime.reset_regions()
    start = time.perf_counter()
    for _ in range(max(_MIN_CALLS, int(_SECONDS * 1e6 / whole))):
        call()
    elapsed = time.perf_counter() - start
    times = {name: round(seconds / elapsed * whole, 2) for name, seconds in runtime.region_seconds().items()}
    return times, max(0.0, whole - sum(times.values()))


def _work(package: ModelPackage, rows: int, context: int) -> dict[str, Work]:
    """By operation, over all blocks."""
    blocks = {name: work.times(package.spec.blocks) for name, work in block_work(package, rows, context).items()}
    return {**blocks, "head": head_work(package, 1)}


def _against_limits(operation: str, us: float, work: Work | None, limits: Limits) -> Part:
    if work is None:
        return Part(operation, us)
    least, bound_by = work.least_seconds(limits)
    return Part(operation, us, round(least * 1e6 / us, 3), bound_by)


def _median_us(call: Callable[[], Any]) -> float:
    call()
    samples: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(samples) < _MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return round(statistics.median(samples) * 1e6, 2)
