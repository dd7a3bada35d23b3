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
from mec_apps.cli.compile import model_option, quantisation_option
from mec_apps.cli.process import kv_compression_option
from mec_apps.cli.requests import CliError, json_option, print_json

threads_option = click.option("--threads", type=click.IntRange(1, 256), help="Threads to compute with (default: all).")
_CHECKOUT = Path(mec_apps.__file__).resolve().parents[1]


@click.group()
def bench() -> None:
    """Measure this machine; figures come with criteria, and a missed one says so but is no error.

    \b
    Example: mec bench decode --json
    """


@bench.command(epilog="Example: mec bench api --quick --json")
@click.option("--quick", is_flag=True, help="Some seconds only, and fewer kills.")
@json_option
def api(quick: bool, as_json: bool) -> None:
    """Reads, lists and durable registrations over REST, against an aiohttp server that does nothing; and kill -9."""
    _report(_module("api").run(quick=quick, kills=5 if quick else 100), as_json)


@bench.command(epilog="Example: mec bench decode --llama-bench build/bin/llama-bench --llama-model q4_0.gguf --json")
@model_option
@quantisation_option
@threads_option
@click.option("--shape", type=click.Choice(["llama-3.2-1b"]), help="Random weights in the shape of a larger model.")
@click.option(
    "--llama-bench",
    type=click.Path(exists=True, dir_okay=False, executable=True, path_type=Path),
    help="llama.cpp's benchmark program, to measure in turns.",
)
@click.option(
    "--llama-model",
    "llama_models",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A model file for it, one of them of four bits; repeatable (with --shape: not needed).",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@json_option
def decode(
    model: str,
    quantisation: str,
    threads: int | None,
    shape: str | None,
    llama_bench: Path | None,
    llama_models: tuple[Path, ...],
    rounds: int,
    as_json: bool,
) -> None:
    """Tokens per second of the unsplit model, against the machine's limits and peers where they are installed."""
    if llama_models and llama_bench is None:
        raise CliError("--llama-model needs --llama-bench, the program that measures it")
    if llama_bench is not None and not llama_models and shape is None:
        raise CliError("--llama-bench needs --llama-model, a file to measure; best one of Q4_0 and one of Q8_0")
    benchmark = _module("decode")
    file = model if shape is None else str(_module("random_model").ensure_random_model(shape))
    llama_cpp = None
    if llama_bench is not None:
        llama_cpp = _module("peers").LlamaCpp(llama_bench.resolve(), llama_models or (Path(file),))
    _report(benchmark.run(file, quantisation, threads, llama_cpp, rounds), as_json)


@bench.command(epilog="Example: mec bench hop --json")
@json_option
def hop(as_json: bool) -> None:
    """A frame from process to process, in the clear and over mutual TLS."""
    _report(_module("hop").run(), as_json)


@bench.command(epilog="Example: mec bench forecast --traces ../shared/traces/cicv5g-rtt --json")
@click.option(
    "--traces",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with files of the CICV5G data set (default: where the benchmarks keep theirs).",
)
@click.option("--after-s", default=2.0, show_default=True, type=click.FloatRange(0.1, 60), help="How far ahead.")
@json_option
def forecast(traces: Path | None, after_s: float, as_json: bool) -> None:
    """How right radio forecasts are on measured round trips, against naive persistence; files that are not there are skipped."""
    result = _module("forecast").run(traces, after_s)
    if not as_json:
        for name, errors in result["traces"].items():
            click.echo(
                f"{name:32} forecast {errors['forecast_ms']:9.2f} ms  persistence {errors['persistence_ms']:9.2f} ms  "
                f"last second {errors['last_second_ms']:9.2f} ms  confidence {errors['confidence']:.2f}"
            )
    _report(result, as_json)


@bench.command(epilog="Example: mec bench notifications --quick --json")
@click.option("--quick", is_flag=True, help="Some seconds only, and fewer kills.")
@json_option
def notifications(quick: bool, as_json: bool) -> None:
    """Time until subscribers are told of changes, beside dead targets too, and whether a kill -9 loses any of it."""
    _report(_module("notifications").run(quick=quick, kills=5 if quick else 100), as_json)


@bench.command(epilog="Example: mec bench plan --quick --json")
@click.option("--quick", is_flag=True, help="Under a minute, with fewer and smaller problems.")
@json_option
def plan(quick: bool, as_json: bool) -> None:
    """Plans against brute force and an exact solver, how long they take for many nodes, and whether they keep limits."""
    _report(_module("plan").run(quick=quick), as_json)


@bench.command(epilog="Example: mec bench quality --quantisation int8 --tokens 512 --json")
@model_option
@click.option(
    "--quantisation",
    "quantisations",
    multiple=True,
    type=click.Choice(["int4", "int8", "f16", "bf16", "f32"]),
    default=["int8", "int4"],
    show_default=True,
    help="How weights are stored; repeatable.",
)
@threads_option
@click.option("--tokens", default=1500, show_default=True, type=click.IntRange(128), help="At most, of the text.")
@json_option
def quality(model: str, quantisations: tuple[str, ...], threads: int | None, tokens: int, as_json: bool) -> None:
    """What quantisation and kernels change in a model's predictions, against the whole model in float32."""
    _report(_module("quality").run(model, quantisations, threads, tokens), as_json)


@bench.command(epilog="Example: mec bench registry --quick --json")
@click.option("--quick", is_flag=True, help="Under a minute, with fewer services and kills.")
@json_option
def registry(quick: bool, as_json: bool) -> None:
    """The service registry over gRPC, against a handler that does nothing and against etcd; watches, leases, kill -9."""
    _report(_module("registry").run(quick=quick), as_json)


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


@bench.command(epilog="Example: mec bench simulate --json")
@click.option("--tokens", default=150, show_default=True, type=click.IntRange(16, 1500), help="Of each answer.")
@json_option
def simulate(tokens: int, as_json: bool) -> None:
    """Whether tokens on three real processes take what the simulator says, for 1, 2 and 4 sessions at once."""
    _report(_module("simulation").run(tokens), as_json)


@bench.command(epilog="Example: mec bench reconfigure --count 20 --json")
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--seed", default=0, show_default=True)
@click.option("--kills", type=click.IntRange(0), help="Of them, SIGKILLs of a node (default: a twentieth).")
@click.option("--aborts", type=click.IntRange(0), help="Of them, plans that are given up (default: a twentieth).")
@click.option(
    "--context",
    "contexts",
    multiple=True,
    type=click.IntRange(64, 8_000),
    help="Pauses at a context of so many tokens besides; repeatable, to compare lengths.",
)
@kv_compression_option
@json_option
def reconfigure(
    count: int,
    seed: int,
    kills: int | None,
    aborts: int | None,
    contexts: tuple[int, ...],
    kv_compression: str,
    as_json: bool,
) -> None:
    """Random live re-splits while answers are generated: tokens lost, identity, pauses, throughput while KV is copied.

    A change takes one to two seconds, and --context 8000 some minutes besides; progress goes to standard error.
    """
    kills, aborts = (count // 20 if each is None else each for each in (kills, aborts))
    if kills + aborts > count:
        raise CliError(f"{kills} kills and {aborts} aborts are more than --count {count}")
    benchmark = _module("reconfigure")
    extent = benchmark.Extent(count, seed, kills, aborts, contexts, kv_compression)
    result = benchmark.run(extent, lambda text: click.echo(text, err=True))
    _report(result, as_json)
    if not as_json:
        for reason, times in result["failures"].items():
            click.echo(f"failed {times} times: {reason}")


@bench.command(epilog="Example: mec bench standby --context 128 --context 2000 --json")
@click.option("--kills", default=5, show_default=True, type=click.IntRange(1, 1000), help="With standbys and without.")
@click.option(
    "--context",
    "contexts",
    multiple=True,
    default=(128, 2000),
    show_default=True,
    type=click.IntRange(64, 8_000),
    help="Tokens of the prompt; repeatable.",
)
@json_option
def standby(kills: int, contexts: tuple[int, ...], as_json: bool) -> None:
    """What a killed node costs where another one stands by for it, and what standing by costs."""
    _report(_module("standby").run(contexts, kills, lambda text: click.echo(text, err=True)), as_json)


@bench.command(epilog="Example: mec bench steady --json")
@click.option("--turns", default=20, show_default=True, type=click.IntRange(2, 1000), help="Some ten seconds each.")
@json_option
def steady(turns: int, as_json: bool) -> None:
    """What watching and being ready to change cost an answer while nothing changes, against the same chain without them."""
    _report(_module("steady").run(turns, lambda text: click.echo(text, err=True)), as_json)


@bench.command(epilog="Example: mec bench targets --quick --json")
@model_option
@quantisation_option
@threads_option
@click.option("--quick", is_flag=True, help="Only targets that this machine runs, fewer rounds and points.")
@json_option
def targets(model: str, quantisation: str, threads: int | None, quick: bool, as_json: bool) -> None:
    """What compiling for each target costs and gives, and how well a cost profile predicts this machine."""
    result = _module("targets").run(model, quantisation, threads or os.cpu_count() or 1, quick=quick)
    if not as_json:
        for row in result["targets"]:
            click.echo(f"{row['target']:24} {row['not_built'] or ', '.join(row['instructions'])}")
    _report(result, as_json)


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
        click.echo(f"{name:48} {value:.6g}")
    for criterion in result["criteria"]:
        verdict = "ok" if criterion["ok"] else "MISSED"
        click.echo(f"{criterion['name']:48} {criterion['value']:.6g}  (bound {criterion['bound']:g})  {verdict}")
