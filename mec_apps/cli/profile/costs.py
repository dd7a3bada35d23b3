"""Cost profiles from the command line: measured here and kept, or computed from a target's stated limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from compiler.targets.choice import detect_local_target, find_target
from compiler.targets.row import CpuTarget
from mec_apps.cli.compile import CompiledFolders, ensure_compiled
from mec_apps.cli.profile.analytical import ASSUMED_ERROR, COMPUTE_SHARE, MEMORY_SHARE, analytical_profile
from mec_apps.cli.profile.fit import HELD_OUT_BOUND, Judged, fit_profile, held_out, judge, largest_error
from mec_apps.cli.profile.sweep import QUICK_ROUNDS, ROUNDS, Sweep, Sweeper, sweep_points
from mec_apps.cli.profile.sweep import Progress as Report
from mec_apps.cli.requests import print_json
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.saved_profile import profile_key, save_profile
from mec_platform.content_store.entries import read_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import CostProfile, RowCost


@dataclass(frozen=True, slots=True)
class Measured:
    """A fitted profile, every point that was measured beside its prediction, and what the machine was like."""

    model: str
    quantisation: str
    target: str
    threads: int
    profile: CostProfile
    judged: tuple[Judged, ...]
    sweep: Sweep

    @property
    def is_good(self) -> bool:
        """Whether all held-out points were predicted within the bound."""
        return largest_error(self.judged) <= HELD_OUT_BOUND

    def as_json(self) -> dict[str, Any]:
        """Everything, for people and programs that want to look closer."""
        return {
            "model": self.model,
            "quantisation": self.quantisation,
            "target": self.target,
            "threads": self.threads,
            "profile": asdict(self.profile),
            "held_out_max_error": round(largest_error(self.judged), 4),
            "held_out_bound": HELD_OUT_BOUND,
            "ok": self.is_good,
            "reference_spread": round(self.sweep.spread, 3),
            "reference_drift": round(self.sweep.drift, 3),
            "points": [_point_facts(each) for each in self.judged],
        }


def measure_profile(package_dir: Path, artefact_dir: Path, threads: int, *, quick: bool) -> Measured:
    """Sweeps and fits, with a progress bar on stderr."""
    sweeper = Sweeper(package_dir, artefact_dir, threads)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with _progress_bar(f"measuring on {threads} threads") as report:
        points = sweep_points(sweeper.context, sweeper.positions, quick=quick)
        sweep = sweeper.measure(points, rounds, report)
    target = sweeper.runtime.target
    tiling = (read_manifest(artefact_dir) or {}).get("tiling", {"tile_rows": [1]})
    profile = fit_profile(sweep.seconds, tuple(tiling["tile_rows"]))
    package = sweeper.package
    return Measured(
        package.spec.name, package.quantisation, target, threads, profile, judge(profile, sweep.seconds), sweep
    )


def measure_and_save(compiled: CompiledFolders, threads: int, quick: bool, as_json: bool) -> None:
    """Measures a profile on this machine and keeps it, whatever its verdict: that is printed and kept with it."""
    found = measure_profile(compiled.package, compiled.artefact, threads, quick=quick)
    key = profile_key(compiled.artefact, read_machine(), threads)
    facts = found.as_json()
    folder = save_profile(ContentStore(), key, found.profile, time.time(), facts["points"])
    if as_json:
        print_json({**facts, "saved": str(folder)})
        return
    click.echo(f"{found.model} {found.quantisation} on {found.target}, {threads} threads")
    _echo_coefficients(found.profile)
    click.echo("points that the fit has not seen:")
    for each in held_out(found.judged):
        click.echo(f"  {_describe(each)}")
    verdict = "ok" if found.is_good else "MISSED"
    click.echo(
        f"largest error {largest_error(found.judged):.1%}, rms {found.profile.rms_error:.1%} "
        f"(bound {HELD_OUT_BOUND:.0%})  {verdict}"
    )
    click.echo(
        f"the machine: the reference point's slowest visit took {found.sweep.spread:.0%} longer than its fastest, "
        f"drift {found.sweep.drift:+.0%}"
    )
    click.echo(f"saved in {folder}; mec node with {threads} threads reports it from its next start")


def show_analytical(model: str, quantisation: str, target: str | None, threads: int | None, as_json: bool) -> None:
    """Prints the profile of a target that need not be at hand, with what it assumes."""
    row = find_target(target or detect_local_target())
    package = ModelPackage.open(ensure_compiled(model, quantisation, None).package)
    count = threads or (row.cores if isinstance(row, CpuTarget) else None) or os.cpu_count() or 1
    found = analytical_profile(package, row, count)
    if as_json:
        print_json(
            {
                "model": package.spec.name,
                "quantisation": package.quantisation,
                "target": row.name,
                "threads": count,
                "profile": asdict(found),
                "assumed": {
                    "limits": asdict(row.limits),
                    "memory_share": MEMORY_SHARE,
                    "compute_share": COMPUTE_SHARE,
                    "error": ASSUMED_ERROR,
                },
            }
        )
        return
    click.echo(f"{package.spec.name} {package.quantisation} on {row.name}, {count} threads: computed, not measured")
    click.echo(
        f"assumed: {MEMORY_SHARE:.0%} of {row.limits.memory_bytes_per_s / 1e9:.1f} GB/s and {COMPUTE_SHARE:.0%} of "
        f"{row.limits.float32_ops_per_s / 1e9:.0f} GFLOP/s float32 and {row.limits.int8_ops_per_s / 1e9:.0f} GOP/s int8 "
        f"{'a core' if row.kind == 'cpu' else 'of the GPU'}"
    )
    _echo_coefficients(found)


def _echo_coefficients(profile: CostProfile) -> None:
    def rows(cost: RowCost) -> str:
        tiles = zip(profile.tile_rows, cost.tile_s, strict=True)
        return f"{cost.call_s * 1e6:.1f} us a call, " + ", ".join(f"{s * 1e6:.1f} us a tile of {n}" for n, s in tiles)

    click.echo(f"block: {rows(profile.block)}")
    click.echo(
        f"       {profile.own_position_s * 1e9:.1f} ns a position of a decode step, "
        f"{profile.shared_position_s * 1e9:.1f} ns of a prompt"
    )
    click.echo(f"head:  {rows(profile.head)}")


def _describe(each: Judged) -> str:
    point = each.point
    what = f"{point.work:6} {point.rows:3} rows" + ("" if point.work == "head" else f" after {point.context:4} tokens")
    return f"{what:32} {each.measured_s * 1e6:9.1f} us, predicted {each.predicted_s * 1e6:9.1f} us  {each.error:+.1%}"


def _point_facts(each: Judged) -> dict[str, Any]:
    return {
        **asdict(each.point),
        "measured_us": round(each.measured_s * 1e6, 2),
        "predicted_us": round(each.predicted_s * 1e6, 2),
        "error": round(each.error, 4),
    }


@contextmanager
def _progress_bar(text: str) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
