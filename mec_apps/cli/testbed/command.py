"""`mec testbed`: what a fading link does to answers, with and without adaptation, on real processes and shaped links."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import click

from mec_apps.cli.compile import ensure_compiled, model_option, quantisation_option
from mec_apps.cli.figures import check_figure
from mec_apps.cli.local_cluster import NodeOptions
from mec_apps.cli.requests import CliError, json_option, print_json
from mec_apps.cli.testbed.cleanup import remove_leftovers
from mec_apps.cli.testbed.comparison import draw, print_report, report, simulate_again, write_calibrated
from mec_apps.cli.testbed.demand import Arrivals, Demand, Streams
from mec_apps.cli.testbed.kernel import check_tools
from mec_apps.cli.testbed.network import MOST_MEMBERS
from mec_apps.cli.testbed.report import figure, summary, table
from mec_apps.cli.testbed.run import Measured, Trial, run_trial
from mec_apps.cli.testbed.timeline import (
    Change,
    LinkRate,
    changes_of,
    fade,
    not_carried_out,
    refuse_what_is_not_played,
    settings_at_start,
)
from mec_platform.control_plane.policy_table import policy_table
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.scenario.scenario import Scenario, node_names
from mec_platform.simulation.compare import Comparison, settings_of
from mec_platform.simulation.loading import LoadedWorld, Traces, find_scenario, load_world

MBIT = 1e6 / 8
THREADS = 1
CONTEXT = 2048
NODES = tuple(NodeOptions(f"edge-{number}", threads=THREADS, memory_mib=120) for number in (1, 2, 3))
"""Any two of them have room for the default model: there is always a hop, and a node to spare."""


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, path_type=Path)

_streams_option = click.option(
    "--streams", default=1, show_default=True, type=click.IntRange(1, 32), help="Answers at the same time."
)
_prompt_option = click.option(
    "--prompt-tokens",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1900),
    help="Of each question; the shortest has about 50.",
)
_answer_option = click.option(
    "--answer-tokens", default=400, show_default=True, type=click.IntRange(1, 1900), help="Of each answer, at most."
)
_cooldown_option = click.option(
    "--cooldown-s", default=5.0, show_default=True, type=click.FloatRange(0), help="As of mec serve."
)
_figure_option = click.option(
    "--figure", "figure_path", type=click.Path(path_type=Path, dir_okay=False), help="Draw it (.png or .svg)."
)

MOST_NODES = MOST_MEMBERS - 2
"""Beside the platform and the gateway."""


@click.group()
def testbed() -> None:
    """Real processes in network namespaces, over links that the kernel shapes, with CPU quotas. Needs root.

    \b
    sudo mec testbed fade --figure fade.png
    sudo mec testbed run --scenario site.toml
    """


@testbed.command("fade", epilog="Example: sudo mec testbed fade --from-mbit 100 --to-mbit 5 --figure fade.png")
@model_option
@quantisation_option
@click.option(
    "--from-mbit", default=100.0, show_default=True, type=click.FloatRange(0.1, 10_000), help="Rate at first."
)
@click.option(
    "--to-mbit", default=5.0, show_default=True, type=click.FloatRange(0.1, 10_000), help="Rate after the fade."
)
@click.option("--fade-at-s", default=10.0, show_default=True, type=click.FloatRange(0), help="When the fade begins.")
@click.option("--fade-over-s", default=10.0, show_default=True, type=click.FloatRange(0.1), help="How long it takes.")
@click.option("--duration-s", default=45.0, show_default=True, type=click.FloatRange(1, 86_400), help="Of each run.")
@_streams_option
@_prompt_option
@_answer_option
@_cooldown_option
@_figure_option
@json_option
def fade_command(
    model: str,
    quantisation: str,
    from_mbit: float,
    to_mbit: float,
    fade_at_s: float,
    fade_over_s: float,
    duration_s: float,
    streams: int,
    prompt_tokens: int,
    answer_tokens: int,
    cooldown_s: float,
    figure_path: Path | None,
    as_json: bool,
) -> None:
    """Let the link in use fade while answers are made: once with adaptation, once with the plan left as it is.

    It is the link between the first two nodes of the plan that is in force when the fade begins.
    """
    if fade_at_s + fade_over_s >= duration_s:
        raise CliError("the fade must end before the run does: raise --duration-s")
    check_figure(figure_path)
    members = ["gateway", *(node.name for node in NODES)]

    def story(plan: SplitPlan) -> list[Change]:
        source, target = next(iter(pairwise(plan.nodes)), ("gateway", plan.nodes[0]))
        return fade(source, target, from_mbit * MBIT, to_mbit * MBIT, fade_at_s, fade_over_s)

    demand = Streams(streams, prompt_tokens, answer_tokens)
    rates = [LinkRate(0.0, a, b, from_mbit * MBIT) for a in members for b in members if a != b]
    policy = {"change": {"cooldown_s": cooldown_s}}
    trial = Trial(NODES, rates, story, duration_s, demand, policy, told_at_s=fade_at_s)
    runs = run_trial(trial, ensure_compiled(model, quantisation, None)).runs
    title = f"A link in use fades from {from_mbit:g} to {to_mbit:g} Mbit/s"
    _show(runs, fade_at_s + fade_over_s, title, figure_path, as_json)


@testbed.command("run", epilog="Example: sudo mec testbed run --scenario site.toml --figure site.png")
@click.option("--scenario", required=True, help="A TOML file, or one that is built in, as of mec simulate.")
@click.option("--bandwidth", type=_FILE, help="Bandwidth trace for the links that take one.")
@click.option("--arrivals", type=_FILE, help="Arrival trace for the deployment.")
@click.option("--duration", "duration_s", type=click.FloatRange(1, 86_400), help="Seconds, in place of the scenario's.")
@click.option(
    "--streams",
    type=click.IntRange(1, 32),
    help="So many answers at any time without pause, in place of the scenario's requests.",
)
@click.option("--calibrated", type=_OUTPUT, help="Write the scenario with the measured numbers, for mec simulate.")
@model_option
@quantisation_option
@_figure_option
@json_option
def run_command(
    scenario: str,
    bandwidth: Path | None,
    arrivals: Path | None,
    duration_s: float | None,
    streams: int | None,
    calibrated: Path | None,
    model: str,
    quantisation: str,
    figure_path: Path | None,
    as_json: bool,
) -> None:
    """Play a scenario as mec simulate takes it, and simulate it with what was measured: both in one report.

    Rates of links, bandwidth traces, shares of processors, lost nodes, memory, trust, the policy and requests are those of
    the file. Nodes compute as fast as this machine does, with quotas where the file says that some are slower. What cannot
    be carried out is refused or announced.
    """
    check_figure(figure_path)
    loaded = load_world(find_scenario(scenario), Traces(bandwidth=bandwidth, arrivals=arrivals), duration_s)
    world = loaded.world
    nodes = _nodes_of(world.scenario)
    settings = settings_of(world.scenario)
    demand = _demand(loaded, streams)
    notes = not_carried_out(world.scenario)
    for note in notes:
        click.echo(f"not carried out: {note}", err=True)
    (spec,) = world.scenario.deployments
    trial = Trial(
        nodes,
        settings_at_start(world),
        lambda plan: changes_of(world),
        world.scenario.duration_s,
        demand,
        policy_table(settings[spec.name]),
        measures=True,
    )
    compared = simulate_again(loaded, run_trial(trial, ensure_compiled(model, quantisation, None)), demand, THREADS)
    result = report(compared, notes)
    if as_json:
        print_json(result)
    else:
        print_report(result)
    if calibrated is not None:
        write_calibrated(compared, calibrated)
    if figure_path is not None:
        draw(compared, figure_path)


def _nodes_of(scenario: Scenario) -> tuple[NodeOptions, ...]:
    """Raises CliError where a testbed cannot be that scenario."""
    if [gateway.name for gateway in scenario.gateways] != ["gateway"] or len(scenario.deployments) != 1:
        raise CliError("a testbed has one gateway, called gateway, and one deployment")
    refuse_what_is_not_played(scenario)
    nodes = tuple(
        NodeOptions(name, threads=THREADS, memory_mib=int(spec.memory_mib), trusted=spec.trusted)
        for spec in scenario.nodes
        for name in node_names(spec)
    )
    if len(nodes) > MOST_NODES:
        raise CliError(f"{len(nodes)} nodes, a testbed has {MOST_NODES} at most; `mec simulate` takes more")
    return nodes


def _demand(loaded: LoadedWorld, streams: int | None) -> Demand:
    """The scenario's own requests, the very ones that a simulation serves; or answers without pause."""
    world = loaded.world
    (spec,) = world.scenario.deployments
    asked = spec.demand
    if streams or asked.streams:
        return Streams(streams or asked.streams, asked.prompt_tokens, asked.answer_tokens)
    requests = Comparison.of(world, loaded.arrivals).requests[spec.name]
    if not requests:
        raise CliError("the scenario has no requests in that time; --streams 4 asks for answers without pause")
    longest = max(request.prompt_tokens + request.answer_tokens for request in requests)
    if longest > CONTEXT:
        raise CliError(f"a request has {longest} tokens with its answer, and the testbed's nodes keep {CONTEXT}")
    return Arrivals(requests, spec.max_sessions)


@testbed.command(epilog="Example: sudo mec testbed clean")
@json_option
def clean(as_json: bool) -> None:
    """Take down what testbeds left behind whose process is gone."""
    check_tools()
    gone = remove_leftovers()
    if as_json:
        print_json({"removed": gone})
    else:
        click.echo(f"removed: {', '.join(gone) or 'nothing was left'}")


def _show(runs: Sequence[Measured], after_s: float, title: str, figure_path: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(summary(runs, after_s))
    else:
        click.echo(table(runs, after_s))
    if figure_path is not None:
        figure(runs, figure_path, title)
