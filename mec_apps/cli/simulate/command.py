"""`mec simulate`: the platform's decisions over a simulated world, beside what they are compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mec_apps.cli.figures import check_figure
from mec_apps.cli.requests import CliError, json_option, print_json
from mec_apps.cli.simulate.tables import print_summaries
from mec_platform.scenario.scenario import Scenario
from mec_platform.simulation.compare import POLICIES, Comparison, slo_of
from mec_platform.simulation.large import large_scenario
from mec_platform.simulation.loading import BUILT_IN, Traces, find_scenario, load_world
from mec_platform.simulation.parts import independent_parts, joined_record
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.summary import criteria, room, summarise
from mec_platform.simulation.world import World

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

AT_SCALE = "adaptive,even-split"
"""What is compared by default in large worlds: hindsight over hours of hundreds of nodes takes longer than the run itself."""


@click.command(
    epilog="""
    \b
    Trace files, all read line by line:
      --radio      whitespace-separated columns after one header line: time sent (ms), time received (ms), round
                   trip (ms), x (m), y (m), heading (rad), velocity (m/s), cell id, SINR (dB), RSRP (dBm); more
                   columns are ignored (the CICV5G data set)
      --bandwidth  two whitespace-separated columns without header: time (s), throughput (Mbit/s)
      --arrivals   CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens; a timestamp is
                   2023-11-16 18:15:46.68 or plain seconds (Azure's LLM inference traces)

    \b
    Example: mec simulate --radio drive.txt --figure drive.png
    """
)
@click.option("--scenario", help=f"A TOML file, or one that is built in: {', '.join(BUILT_IN)}.")
@click.option("--radio", type=_FILE, help="Radio trace for the links that take one.")
@click.option("--bandwidth", type=_FILE, help="Bandwidth trace for the links that take one.")
@click.option("--arrivals", type=_FILE, help="Arrival trace for all deployments.")
@click.option("--speedup", type=click.FloatRange(0, min_open=True), help="So many times as fast come the arrivals.")
@click.option("--bandwidth-scale", type=click.FloatRange(0, min_open=True), help="Each throughput times this.")
@click.option("--duration", "duration_s", type=click.FloatRange(1, 30 * 86400), help="Seconds to simulate.")
@click.option("--seed", type=int, help="Of requests and measurement noise.")
@click.option("--scale", metavar="NODESxDEPLOYMENTS", help="A large world instead of a scenario, such as 1000x50.")
@click.option("--policies", help=f"Which to compare, with commas (default: all of {','.join(POLICIES)}).")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw the run: FILE.png or FILE.svg.")
@json_option
def simulate(
    scenario: str | None,
    radio: Path | None,
    bandwidth: Path | None,
    arrivals: Path | None,
    speedup: float | None,
    bandwidth_scale: float | None,
    duration_s: float | None,
    seed: int | None,
    scale: str | None,
    policies: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Run the platform's own decision code over a simulated world and compare it with other policies.

    Nodes, links, requests and time are models; what members measure of them goes through monitoring, and decisions are
    production's. All policies meet the same world, requests and noise, and the same seed gives the same result. Without
    --scenario the world is `vehicle`, or `backhaul` where only --bandwidth is given.
    """
    traces = Traces(radio, bandwidth, arrivals, speedup, bandwidth_scale)
    chosen = _policies(policies or (AT_SCALE if scale else ",".join(POLICIES)))
    check_figure(figure)
    world = _scenario(scenario, scale, traces)
    if seed is not None:
        world = replace(world, seed=seed)
    loaded = load_world(world, traces, duration_s)
    comparison = Comparison.of(loaded.world, loaded.arrivals)
    parts = independent_parts(loaded.world.scenario, os.cpu_count() or 1) if scale else (loaded.world.scenario,)
    if len(parts) > 1:
        records = _run_apart(parts, loaded.world.scenario, chosen)
    else:
        with _progress() as report:
            comparison.on_progress = report
            records = [comparison.run(policy) for policy in chosen]
    slos = {name: slo_of(settings) for name, settings in comparison.settings.items()}
    summaries = {record.policy: summarise(record, slos) for record in records}
    result = {
        "scenario": loaded.world.scenario.title,
        "seed": loaded.world.scenario.seed,
        "duration_s": loaded.world.scenario.duration_s,
        "room": room(summaries),
        "policies": summaries,
        "criteria": criteria(summaries),
    }
    if as_json:
        print_json(result)
    else:
        print_summaries(result)
    if figure is not None:
        from mec_apps.cli.simulate.figure import draw_figure  # which needs matplotlib

        draw_figure(figure, comparison.world, records, slos)


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in POLICIES:
            raise CliError(f"--policies: there is no policy {name!r}; there are {', '.join(POLICIES)}")
    return [name for name in POLICIES if name in names]


def _scenario(name: str | None, scale: str | None, traces: Traces) -> Scenario:
    if scale is None:
        return find_scenario(name or ("backhaul" if traces.bandwidth and not traces.radio else "vehicle"))
    if name is not None:
        raise CliError("--scale makes a world of its own; leave out --scenario")
    nodes, _, deployments = scale.partition("x")
    if not (nodes.isdigit() and deployments.isdigit() and int(nodes) >= 2 * int(deployments) >= 2):
        raise CliError(f"--scale {scale!r}: write nodes x deployments, two nodes for each at least, as in 1000x50")
    return large_scenario(int(nodes), int(deployments))


def _run_apart(parts: Sequence[Scenario], whole: Scenario, policies: Sequence[str]) -> list[RunRecord]:
    """Every policy over every part, each part in a process of its own."""
    order = [spec.name for spec in whole.deployments]
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool, _progress() as report:
        waiting = {policy: [pool.submit(_run_part, part, policy) for part in parts] for policy in policies}
        records = []
        for policy, futures in waiting.items():
            done = []
            for number, future in enumerate(futures):
                if report is not None:
                    report(policy, number / len(futures))
                done.append(future.result())
            records.append(joined_record(done, order))
    return records


def _run_part(part: Scenario, policy: str) -> RunRecord:
    return Comparison.of(World(part, {}), {}).run(policy)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar for each policy on stderr, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description:14}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(policy: str, share: float) -> None:
            if policy not in tasks:
                tasks[policy] = bars.add_task(policy, total=1.0)
            bars.update(tasks[policy], completed=share)

        yield report
