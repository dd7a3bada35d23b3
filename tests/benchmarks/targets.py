"""`mec bench targets`: what compiling for a target costs and gives, and how well a cost profile predicts this machine.

Every row of the target table is compiled into an empty store; one that cannot be built here is listed with the reason. The
x86 levels and the row of this machine then run in turns, so that slow minutes fall on all of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.build import CompiledModel as CompiledDirs
from compiler.build import ensure_model_package, ensure_row_artefact
from compiler.errors import CompilerError
from compiler.models.spec import ArchitectureDims
from compiler.targets.choice import TARGETS, detect_local_target, find_target
from mec_apps.cli.profile.analytical import analytical_profile
from mec_apps.cli.profile.costs import Measured, measure_profile
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.sampling import sample_token
from mec_platform.content_store.entries import bytes_on_disk, read_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import Batch
from tests.benchmarks.machine import at_least, at_most, machine
from tests.benchmarks.rates import Rates
from tests.compiler.running import open_model

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
ROUNDS, QUICK_ROUNDS = 7, 3
PROMPT, CONTEXT, DECODE_CALLS = 128, 16, 16
NATIVE_OVER_V2_PREFILL = 2.0
PROFILE_ERROR = 0.15


@dataclass(frozen=True, slots=True)
class BuiltTarget:
    """A row of the table: its artefact, or why there is none. `instructions` are the families that its kernels use."""

    target: str
    kind: str
    compile_s: float | None
    artefact_bytes: int | None
    instructions: tuple[str, ...]
    not_built: str | None
    folder: Path | None


class Variant:
    """One target's artefact of the model, opened; a session whose first pages are written."""

    def __init__(self, name: str, dirs: CompiledDirs, threads: int) -> None:
        self.name = name
        self._package = ModelPackage.open(dirs.package_dir)
        self._runtime = open_model(dirs, threads=threads, sessions=1, context=2 * PROMPT)
        self._tokens = np.random.default_rng(0).integers(0, self._package.spec.vocab, PROMPT)

    def prefill(self) -> None:
        """A prompt, and the first token of its answer."""
        self._step(np.arange(PROMPT))

    def decode(self) -> None:
        """One token."""
        self._step(np.array([CONTEXT]))

    def _step(self, positions: np.ndarray) -> None:
        hidden = self._runtime.embed(self._tokens[positions])
        hidden = self._runtime.run_blocks(self._package.layers, hidden, positions, np.zeros(len(positions), np.int32))
        sample_token(self._runtime.head(hidden[-1:])[0], 0.0, 1.0, 0, 0)


def run(model: str, quantisation: str, threads: int, *, quick: bool) -> dict[str, Any]:
    """`quick` leaves out the rows that this machine does not run, and measures fewer rounds and points."""
    package_dir, _ = ensure_model_package(model, quantisation, ContentStore(), lambda *_: None)
    runnable = runnable_levels()
    names = runnable if quick else tuple(row.name for row in TARGETS)
    with tempfile.TemporaryDirectory(prefix="mec-bench-") as folder:
        built = [
            _build(package_dir, name, ContentStore(Path(folder)), f"{n} of {len(names)}") for n, name in _count(names)
        ]
        ran = {each.target: CompiledDirs(package_dir, each.folder, True) for each in built if each.folder is not None}
        rates = _measure_speeds(
            {name: ran[name] for name in runnable if name in ran}, threads, QUICK_ROUNDS if quick else ROUNDS
        )
        local = detect_local_target()
        profile = measure_profile(package_dir, ran[local].artefact_dir, threads, quick=quick) if local in ran else None
    metrics = {**_build_metrics(built), **rates.metrics(), **_gains(rates, local)}
    if profile is not None:
        metrics |= _profile_metrics(profile, ModelPackage.open(package_dir), local, threads)
    metrics = {name: round(value, 4) for name, value in metrics.items()}
    targets = [{name: value for name, value in asdict(each).items() if name != "folder"} for each in built]
    return {
        "bench": "targets",
        "machine": machine(),
        "metrics": metrics,
        "criteria": _criteria(metrics),
        "targets": targets,
    }


def runnable_levels() -> tuple[str, ...]:
    """The x86 levels whose features this machine has, and its own row, slowest first."""
    features, local = read_machine().features, detect_local_target()
    levels = [name for name in LEVELS if find_target(name).features <= features]
    return tuple(dict.fromkeys((*levels, local)))


def _build(package_dir: Path, target: str, store: ContentStore, count: str) -> BuiltTarget:
    _say(f"compiling for {target} ({count})")
    manifest = read_manifest(package_dir) or {}
    kind = find_target(target).kind
    started = time.perf_counter()
    try:
        folder, _ = ensure_row_artefact(
            ArchitectureDims(**manifest["dims"]),
            manifest["quantisation"],
            find_target(target),
            store,
            lambda *_: None,
            count_instructions=True,
        )
    except CompilerError as error:
        return BuiltTarget(target, kind, None, None, (), str(error), None)
    compile_s = time.perf_counter() - started
    instructions = tuple((read_manifest(folder) or {}).get("instructions", ()))
    return BuiltTarget(target, kind, round(compile_s, 2), bytes_on_disk(folder), instructions, None, folder)


def _measure_speeds(ran: dict[str, CompiledDirs], threads: int, rounds: int) -> Rates:
    variants = [Variant(name, dirs, threads) for name, dirs in ran.items()]
    for variant in variants:
        variant.prefill()  # writes the pages that decoding reads
    rates = Rates()
    for turn, _ in _count(range(rounds)):
        _say(f"round {turn} of {rounds}: {', '.join(variant.name for variant in variants)}")
        for variant in variants:
            rates.time(f"{variant.name}_prefill_{PROMPT}", PROMPT, 1, variant.prefill)
            rates.time(f"{variant.name}_decode", 1, DECODE_CALLS, variant.decode)
    return rates


def _build_metrics(built: list[BuiltTarget]) -> dict[str, float]:
    metrics: dict[str, float] = {"targets_built": sum(each.not_built is None for each in built)}
    for each in built:
        if each.compile_s is not None and each.artefact_bytes is not None:
            metrics[f"{each.target}_compile_s"] = each.compile_s
            metrics[f"{each.target}_artefact_bytes"] = each.artefact_bytes
    return metrics


def _gains(rates: Rates, local: str) -> dict[str, float]:
    """Of the machine's own row over the oldest x86, best over best."""
    gains = {}
    for what in (f"prefill_{PROMPT}", "decode"):
        if {f"{local}_{what}", f"{LEVELS[0]}_{what}"} <= set(rates.names()):
            gains[f"native_over_v2_{what}"] = rates.best(f"{local}_{what}") / rates.best(f"{LEVELS[0]}_{what}")
    return gains


def _profile_metrics(found: Measured, package: ModelPackage, local: str, threads: int) -> dict[str, float]:
    computed = analytical_profile(package, find_target(local), threads)
    facts = found.as_json()
    return {
        "profile_held_out_max_error": facts["held_out_max_error"],
        "profile_held_out_rms_error": found.profile.rms_error,
        "profile_reference_spread": facts["reference_spread"],
        "analytical_over_measured_1_row": computed.block_s(Batch(1)) / found.profile.block_s(Batch(1)),
        "analytical_over_measured_128_rows": computed.block_s(Batch(128)) / found.profile.block_s(Batch(128)),
    }


def _criteria(metrics: dict[str, float]) -> list[dict[str, object]]:
    """Of everything that was measured."""
    bounds = {
        f"native_over_v2_prefill_{PROMPT}": (at_least, NATIVE_OVER_V2_PREFILL),
        "profile_held_out_max_error": (at_most, PROFILE_ERROR),
    }
    return [judge(name, metrics[name], bound) for name, (judge, bound) in bounds.items() if name in metrics]


def _count(things: Any) -> Iterator[tuple[int, Any]]:
    return enumerate(things, start=1)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
