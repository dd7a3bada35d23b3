"""`mec bench NAME`: runs a benchmark of the source checkout and judges it by its criteria."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import mec_apps
from mec_apps.cli.requests import CliError, json_option, print_json

_CHECKOUT = Path(mec_apps.__file__).resolve().parents[1]


@click.group()
def bench() -> None:
    """Measure this machine; figures come with criteria, and a missed one says so but is no error.

    \b
    Example: mec bench decode --json
    """


@bench.command(epilog="Example: mec bench decode --json")
@click.option("--model", default="smollm2", show_default=True)
@click.option("--quantisation", type=click.Choice(["int4", "int8", "f32"]), default="int4", show_default=True)
@json_option
def decode(model: str, quantisation: str, as_json: bool) -> None:
    """Tokens per second of the unsplit model: decode and prefill."""
    _report(_module("decode").run(model=model, quantisation=quantisation), as_json)


@bench.command(epilog="Example: mec bench split --stages 1,2,3 --json")
@click.option("--stages", default="1,2,3", show_default=True, help="Numbers of stages to measure.")
@click.option("--tokens", default=200, show_default=True, type=click.IntRange(8, 1500))
@json_option
def split(stages: str, tokens: int, as_json: bool) -> None:
    """Tokens per second over 1, 2, 3 stage processes, and what a hop costs."""
    try:
        counts = [int(text) for text in stages.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= 8 for count in counts):
        raise CliError(f"--stages {stages!r}: write numbers from 1 to 8 with commas, as in 1,2,3")
    os.nice(10)  # the one who asks would be on another machine; here it must not take the stages' cores
    _report(_module("split").run(counts, tokens), as_json)


@bench.command(epilog="Example: mec bench reconfigure --count 20 --json")
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=0, show_default=True)
@json_option
def reconfigure(count: int, seed: int, as_json: bool) -> None:
    """Random live re-splits while answers are generated: tokens lost, identity, pauses."""
    _report(_module("reconfigure").run(count, seed), as_json)


def _module(name: str) -> Any:
    if not (_CHECKOUT / "tests" / "benchmarks" / f"{name}.py").is_file():
        raise CliError("benchmarks are part of the source checkout; run mec from an editable install of it")
    sys.path.insert(0, str(_CHECKOUT))
    return importlib.import_module(f"tests.benchmarks.{name}")


def _report(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result["metrics"].items():
        click.echo(f"{name:40} {value:.6g}")
    for criterion in result["criteria"]:
        verdict = "ok" if criterion["ok"] else "MISSED"
        click.echo(f"{criterion['name']:40} {criterion['value']:.6g}  (bound {criterion['bound']:g})  {verdict}")
