"""A trial simulated again with its own measured numbers, and both in one report: `mec testbed run` beside `mec simulate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.requests import CliError
from mec_apps.cli.simulate.tables import print_summaries
from mec_apps.cli.tables import print_table
from mec_apps.cli.testbed.agreement import agreement
from mec_apps.cli.testbed.calibration import calibrated
from mec_apps.cli.testbed.demand import Demand, Streams
from mec_apps.cli.testbed.records import ADAPTIVE, UNCHANGED, mean_answer_tokens, record_of, requests_of_run
from mec_apps.cli.testbed.run import Runs
from mec_platform.domain.split_plan import Stage
from mec_platform.scenario.scenario import DemandSpec, Scenario
from mec_platform.scenario.writing import scenario_toml
from mec_platform.simulation.compare import Comparison, settings_of, slo_of
from mec_platform.simulation.controllers import Adaptive, BeginsWith, Controller, Scheduled
from mec_platform.simulation.engine import Engine
from mec_platform.simulation.loading import LoadedWorld
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.requests import Request
from mec_platform.simulation.summary import criteria, room, summarise
from mec_platform.simulation.world import World

MEASURED, SIMULATED = "measured on the testbed", "SIMULATED"


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides, policy by policy in the same order; `worlds` are those simulated, each as measured before its run."""

    worlds: Sequence[World]
    measured: Sequence[RunRecord]
    simulated: Sequence[RunRecord]

    @property
    def scenario(self) -> Scenario:
        """With the numbers measured before the first run."""
        return self.worlds[0].scenario


def simulate_again(loaded: LoadedWorld, trial: Runs, demand: Demand, threads: int) -> Compared:
    """The runs of a trial in a world with its measured numbers: the same requests, from the same first plan.

    Raises:
        CliError: a node has not reported.
    """
    (spec,) = loaded.world.scenario.deployments
    adaptive = trial.runs[0]
    wanted = spec.demand
    if isinstance(demand, Streams):
        prompt = adaptive.requests[0].prompt_tokens if adaptive.requests else demand.prompt_tokens
        wanted = DemandSpec(streams=demand.count, prompt_tokens=prompt, answer_tokens=mean_answer_tokens(adaptive))
    worlds, simulated = [], []
    for run, measures in zip(trial.runs, trial.measures, strict=True):
        try:
            world = loaded.world.with_scenario(calibrated(loaded.world, measures, wanted, threads))
        except ValueError as error:
            raise CliError(str(error)) from error
        requests = {} if wanted.streams else {spec.name: requests_of_run(run)}
        worlds.append(world)
        simulated.append(_simulate(world, run.adaptive, trial.measures[0].plan.stages, requests))
    return Compared(worlds, [record_of(run, spec.name) for run in trial.runs], simulated)


def _simulate(
    world: World, adaptive: bool, first: tuple[Stage, ...], requests: Mapping[str, tuple[Request, ...]]
) -> RunRecord:
    """One run from that plan on; without `requests`, those that the scenario asks for."""
    comparison = Comparison.of(world, {})
    stages = {spec.name: first for spec in world.scenario.deployments}
    controller: Controller = Scheduled.fixed(stages, "the first plan, left as it is")
    if adaptive:
        controller = BeginsWith(stages, Adaptive.of(comparison.settings))
    engine = Engine(world, comparison.settings, requests or comparison.requests, comparison.monitoring, controller)
    return engine.run(ADAPTIVE if adaptive else UNCHANGED)


def report(compared: Compared, notes: Sequence[str]) -> dict[str, Any]:
    """Both sides as `mec simulate --json` has them, and how far they agree."""
    return {
        "measured": _side(compared, compared.measured),
        "simulated": _side(compared, compared.simulated),
        "agreement": {
            here.policy: agreement(here, there)
            for here, there in zip(compared.measured, compared.simulated, strict=True)
        },
        "not_carried_out": list(notes),
        "machine": {
            "cores": os.cpu_count(),
            "others": [world.scenario.machines[0].others for world in compared.worlds],
            "load_average": [round(each, 2) for each in os.getloadavg()],
        },
    }


def print_report(result: Mapping[str, Any]) -> None:
    """For people: the two tables, and the agreement."""
    for note in result["not_carried_out"]:
        click.echo(f"not carried out: {note}")
    click.echo(f"\n{MEASURED}")
    print_summaries(result["measured"])
    click.echo(f"\n{SIMULATED}, with the numbers measured above")
    print_summaries(result["simulated"])
    rows = []
    for policy, facts in result["agreement"].items():
        for name in ("tokens_per_s", "time_per_token_ms", "first_token_ms", "answers"):
            pair = facts[name]
            off = pair["deviation_percent"]
            rows.append(
                [policy, name, f"{pair['measured']}", f"{pair['simulated']}", "" if off is None else f"{off:+.1f} %"]
            )
        off = facts["seconds"]["median_deviation_percent"]
        rows.append([policy, "tokens of each second (median deviation)", "", "", "" if off is None else f"{off:.1f} %"])
        changes = facts["plan_changes_s"]
        times = [", ".join(f"{at_s:g} s" for at_s in changes[side]) or "none" for side in ("measured", "simulated")]
        rows.append([policy, "changes of plan", *times, ""])
    click.echo("")
    print_table(["policy", "agreement", "measured", "SIMULATED", "off by"], rows)
    machine = result["machine"]
    click.echo(
        f"{machine['cores']} cores, for which {' and '.join(f'{each:g}' for each in machine['others'])} threads of others "
        f"competed right before the runs; load average at the end: {machine['load_average'][0]:g}"
    )


def draw(compared: Compared, path: Path) -> None:
    """Measured beside simulated, as `mec simulate --figure` draws a run."""
    from mec_apps.cli.simulate.figure import Column, draw_columns  # which needs matplotlib

    slos = {name: slo_of(settings) for name, settings in settings_of(compared.scenario).items()}
    columns = [
        Column(MEASURED, compared.worlds[0], compared.measured),
        Column(SIMULATED, compared.worlds[0], compared.simulated),
    ]
    try:
        draw_columns(path, compared.scenario.title or "scenario", columns, slos)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error}") from error


def write_calibrated(compared: Compared, path: Path) -> None:
    """The scenario with the measured numbers, for `mec simulate --scenario`. Raises CliError."""
    try:
        path.write_text(scenario_toml(compared.scenario, path.parent.absolute()), encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error}") from error


def _side(compared: Compared, records: Sequence[RunRecord]) -> dict[str, Any]:
    scenario = compared.scenario
    slos = {name: slo_of(settings) for name, settings in settings_of(scenario).items()}
    summaries = {record.policy: summarise(record, slos) for record in records}
    return {
        "scenario": scenario.title,
        "seed": scenario.seed,
        "duration_s": scenario.duration_s,
        "room": room(summaries),
        "policies": summaries,
        "criteria": criteria(summaries),
    }
