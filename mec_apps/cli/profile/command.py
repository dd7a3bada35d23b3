"""`mec profile`: where the time of a step goes against what the machine can do at most; and the cost profile of a machine."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Column, Table

from mec_apps.cli.compile import ensure_compiled, model_option, quantisation_option
from mec_apps.cli.requests import CliError, json_option, print_json

if TYPE_CHECKING:
    from mec_apps.cli.profile.timing import StepProfile


@click.command(
    epilog="Examples: mec profile --rows 8 --context 1000; mec profile --save; "
    "mec profile --target raspberry-pi-5 --analytical --json"
)
@model_option
@quantisation_option
@click.option("--threads", type=click.IntRange(1, 256), help="Threads to compute with (default: all cores).")
@click.option(
    "--rows", default=1, show_default=True, type=click.IntRange(1, 512), help="Tokens of the step; 1 is decoding."
)
@click.option(
    "--context", default=16, show_default=True, type=click.IntRange(0), help="Tokens that stand before the step."
)
@click.option("--target", help="Row of the target table to compile for (default: this machine).")
@click.option(
    "--save", is_flag=True, help="Measure batches, prompts and contexts, fit a cost profile, and keep it for mec node."
)
@click.option("--quick", is_flag=True, help="With --save: fewer points and rounds.")
@click.option("--analytical", is_flag=True, help="A cost profile from the target's stated limits; nothing is measured.")
@json_option
def profile(
    model: str,
    quantisation: str,
    threads: int | None,
    rows: int,
    context: int,
    target: str | None,
    save: bool,
    quick: bool,
    analytical: bool,
    as_json: bool,
) -> None:
    """Time of each operation of a step, and its share of this machine's measured limit; or a machine's cost profile."""
    if analytical and save:
        raise CliError("--save measures, --analytical does not: choose one")
    if analytical:
        from mec_apps.cli.profile.costs import show_analytical  # these need what the platform alone does not

        show_analytical(model, quantisation, target, threads, as_json)
        return
    compiled = ensure_compiled(model, quantisation, target)
    count = threads or os.cpu_count() or 1
    if save:
        from mec_apps.cli.profile.costs import measure_and_save

        measure_and_save(compiled, count, quick, as_json)
        return
    from mec_apps.cli.profile.timing import measure_step

    _show_step(measure_step(compiled.package, compiled.artefact, count, rows, context), as_json)


def _show_step(found: StepProfile, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(found), "total_us": round(found.total_us, 2)})
        return
    console = Console()
    console.print(
        f"{found.model} {found.quantisation} on {found.target}, {found.threads} threads: "
        f"{found.rows} rows after {found.context} tokens take {found.total_us / 1e3:.3f} ms",
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"limits: {found.limits.read_bytes_per_s / 1e9:.1f} GB/s, "
        f"{found.limits.float_ops_per_s / 1e9:.0f} GFLOP/s float32, "
        f"{found.limits.byte_ops_per_s / 1e9:.0f} GOP/s int8"
    )
    console.print(_table(found))


def _table(found: StepProfile) -> Table:
    table = Table("operation", *(Column(name, justify="right") for name in ("us", "%", "% of limit")), "bound by")
    for part in found.parts:
        share = "" if part.limit_share is None else f"{part.limit_share * 100:.0f}"
        percent = f"{part.us / found.total_us * 100:.1f}"
        table.add_row(part.operation.replace("_", " "), f"{part.us:.1f}", percent, share, part.bound_by or "")
    return table
