"""`mec testbed`: what a fading link does to answers, with and without adaptation, on real processes and shaped links."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click

from mec_apps.cli.compile import ensure_compiled, model_option, quantisation_option
from mec_apps.cli.figures import check_figure
from mec_apps.cli.local_cluster import NodeOptions
from mec_apps.cli.requests import CliError, json_option, print_json
from mec_apps.cli.testbed.cleanup import remove_leftovers
from mec_apps.cli.testbed.demand import Streams
from mec_apps.cli.testbed.kernel import check_tools
from mec_apps.cli.testbed.network import MOST_MEMBERS
from mec_apps.cli.testbed.report import figure, summary, table
from mec_apps.cli.testbed.run import Measured, Testbed, Trial, run_trial
from mec_apps.cli.testbed.timeline import Change, fade, from_events, from_traces, static_rates
from mec_platform.scenario.scenario import node_names, read_scenario

MBIT = 1e6 / 8
NODES = tuple(NodeOptions(f"edge-{number}", threads=1, memory_mib=120) for number in (1, 2, 3))
"""Any two of them have room for the default model: there is always a hop, and a node to spare."""


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
    """Let the link in use fade while answers are made: once with adaptation, once with the plan left as it is."""
    if fade_at_s + fade_over_s >= duration_s:
        raise CliError("the fade must end before the run does: raise --duration-s")
    check_figure(figure_path)
    members = ["gateway", *(node.name for node in NODES)]
    rates = {(a, b): from_mbit * MBIT for a in members for b in members if a != b}

    def story(bed: Testbed) -> list[Change]:
        source, target = _link_in_use(bed)
        return fade(source, target, from_mbit * MBIT, to_mbit * MBIT, fade_at_s, fade_over_s)

    demand = Streams(streams, prompt_tokens, answer_tokens)
    trial = Trial(NODES, rates, story, duration_s, demand, cooldown_s)
    runs = run_trial(trial, ensure_compiled(model, quantisation, None))
    title = f"A link in use fades from {from_mbit:g} to {to_mbit:g} Mbit/s"
    _show(runs, fade_at_s + fade_over_s, title, figure_path, as_json)


@testbed.command("run", epilog="Example: sudo mec testbed run --scenario site.toml --figure site.png")
@click.option("--scenario", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help="TOML file.")
@model_option
@quantisation_option
@_streams_option
@_cooldown_option
@_figure_option
@json_option
def run_command(
    path: Path,
    model: str,
    quantisation: str,
    streams: int,
    cooldown_s: float,
    figure_path: Path | None,
    as_json: bool,
) -> None:
    """Play a scenario file as mec simulate takes it: its nodes, rates of links, bandwidth traces and events.

    Nodes compute as fast as this machine does, and answers are asked for without pause: what the file says of their speed
    and of demand is for simulations.
    """
    check_figure(figure_path)
    scenario = read_scenario(path)
    if [gateway.name for gateway in scenario.gateways] != ["gateway"] or len(scenario.deployments) != 1:
        raise CliError(f"{path}: a testbed has one gateway, called gateway, and one deployment")
    nodes = tuple(
        NodeOptions(name, threads=1, memory_mib=int(spec.memory_mib), trusted=spec.trusted)
        for spec in scenario.nodes
        for name in node_names(spec)
    )
    if len(nodes) > MOST_NODES:
        raise CliError(f"{path}: {len(nodes)} nodes, a testbed has {MOST_NODES} at most; `mec simulate` takes more")
    rates = static_rates(scenario)
    changes = [*from_traces(scenario, rates), *from_events(scenario, rates)]
    trial = Trial(nodes, rates, lambda bed: changes, scenario.duration_s, Streams(streams, 50, 400), cooldown_s)
    runs = run_trial(trial, ensure_compiled(model, quantisation, None))
    _show(
        runs, min((change.at_s for change in changes), default=0.0), scenario.title or path.stem, figure_path, as_json
    )


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


def _show(runs: list[Measured], after_s: float, title: str, figure_path: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(summary(runs, after_s))
    else:
        click.echo(table(runs, after_s))
    if figure_path is not None:
        figure(runs, figure_path, title)


def _link_in_use(bed: Testbed) -> tuple[str, str]:
    plan = bed.first_plan
    assert plan is not None  # set before anything is played
    return next(iter(pairwise(plan.nodes)), ("gateway", plan.nodes[0]))
