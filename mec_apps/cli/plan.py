"""`mec plan`: the best plan for the world as it is, or for a world that a scenario file describes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Column, Table

from mec_apps.cli.plane_address import PlaneAddress, plane_channel, plane_options
from mec_apps.cli.requests import (
    CliError,
    as_dict,
    deployment_option,
    json_option,
    print_json,
    run_async,
)
from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.cost_model import PlanCosts, kv_positions, stage_memory_bytes
from mec_platform.control_plane.split_revision.explanation import explain_alternatives, explain_plan
from mec_platform.control_plane.split_revision.search import FoundPlan, NoPlan, best_plan, describe_gap
from mec_platform.control_plane.split_revision.settings import OBJECTIVES, Objective, PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc
from mec_platform.scenario.scenario import DeploymentSpec, Scenario, read_scenario
from mec_platform.scenario.snapshots import initial_snapshot


@click.command(
    epilog="Example: mec plan --exclude edge-2; or without a platform: mec plan --scenario world.toml --explain"
)
@click.option("--exclude", multiple=True, help="Leave a node out (repeatable).")
@click.option(
    "--scenario",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Plan for the world at the start of this scenario file; no platform is asked.",
)
@click.option("--deployment", default="", help="With --scenario: the deployment to plan for, where there are several.")
@click.option(
    "--objective", type=click.Choice(OBJECTIVES), default="weighted", show_default=True, help="With --scenario."
)
@click.option("--explain", is_flag=True, help="With --scenario: every term of the cost, and why not another plan.")
@deployment_option
@plane_options
@json_option
def plan(
    exclude: tuple[str, ...],
    scenario: Path | None,
    deployment: str,
    objective: str,
    explain: bool,
    model: str,
    platform_grpc: PlaneAddress,
    as_json: bool,
) -> None:
    """The best plan for the world as it is, explained; nothing is changed."""
    if scenario is None:
        if deployment or explain or objective != "weighted":
            raise click.UsageError("--deployment, --objective and --explain need --scenario")
        _plan_live(platform_grpc, model, exclude, as_json)
        return
    world = read_scenario(scenario)
    settings = PlanSettings().for_objective(cast(Objective, objective))
    seen = initial_snapshot(world, _deployment(world, deployment or model))
    unknown = sorted(set(exclude) - {node.name for node in seen.nodes})
    if unknown:
        raise CliError(f"{scenario} has no node called {', '.join(unknown)} at its start")
    found = best_plan(seen, settings, frozenset(exclude))
    if isinstance(found, NoPlan):
        raise CliError(found.reason)
    if errors := check_plan(found.plan, seen, settings):
        raise CliError(f"the plan fails its check: {'; '.join(errors)}")
    if as_json:
        print_json(_facts(found, seen, settings, explain))
    else:
        _print(found, seen, settings, explain)


def _deployment(scenario: Scenario, name: str) -> DeploymentSpec:
    names = [each.name for each in scenario.deployments]
    if not name and len(names) == 1:
        return scenario.deployments[0]
    if name not in names:
        raise CliError(f"choose one of the deployments with --deployment: {', '.join(names)}")
    return scenario.deployments[names.index(name)]


def _facts(found: FoundPlan, seen: Snapshot, settings: PlanSettings, explain: bool) -> dict[str, Any]:
    stages = [
        {"node": stage.node, "start": stage.layers.start, "stop": stage.layers.stop, "ms": found.cost.stage_ms[index]}
        for index, stage in enumerate(found.plan.stages)
    ]
    facts: dict[str, Any] = {
        "deployment": found.plan.model,
        "stages": stages,
        "cost": asdict(found.cost),
        "gap": found.gap,
    }
    if explain:
        facts["explanation"] = explain_plan(found.plan, seen, settings, found.gap)
        facts["alternatives"] = explain_alternatives(found.plan, seen, settings)
    return facts


def _print(found: FoundPlan, seen: Snapshot, settings: PlanSettings, explain: bool) -> None:
    cost = found.cost
    click.echo(f"{found.plan.model}: {found.plan.describe()}")
    click.echo(
        f"cost {cost.total_ms:.2f} ms per token, latency {cost.latency_ms:.2f} ms, busiest {cost.bottleneck_ms:.2f} ms; "
        f"{describe_gap(found.gap)}"
    )
    Console().print(_stage_table(found, seen, settings))
    if explain:
        for line in (
            *explain_plan(found.plan, seen, settings, found.gap),
            *explain_alternatives(found.plan, seen, settings),
        ):
            click.echo(line)


def _stage_table(found: FoundPlan, seen: Snapshot, settings: PlanSettings) -> Table:
    costs, model = PlanCosts(seen, settings), seen.model
    assert model is not None  # a plan was found for it
    numbers = [Column(name, justify="right") for name in ("hop ms", "stage ms", "MB", "of MB")]
    table = Table("node", Column("blocks", no_wrap=True), "site", "trusted", *numbers)
    for index, stage in enumerate(found.plan.stages):
        node = costs.nodes[stage.node]
        needed = stage_memory_bytes(stage.layers, model, settings, kv_positions(seen, settings))
        table.add_row(
            node.name,
            str(stage.layers),
            node.site,
            "yes" if node.trusted else "no",
            f"{found.cost.hop_ms[index]:.2f}",
            f"{found.cost.stage_ms[index]:.2f}",
            f"{needed / 1e6:.1f}",
            f"{node.memory_bytes / 1e6:.1f}",
        )
    table.add_row("(gateway)", "", "", "", f"{found.cost.hop_ms[-1]:.2f}", "", "", "")
    return table


def _plan_live(platform_grpc: PlaneAddress, model: str, exclude: tuple[str, ...], as_json: bool) -> None:
    proposal = run_async(_propose(platform_grpc, model, exclude))
    if as_json:
        print_json(as_dict(proposal))
        return
    for line in proposal.explanation:
        click.echo(line)


async def _propose(address: PlaneAddress, model: str, exclude: tuple[str, ...]) -> control_plane_pb2.ProposePlanReply:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.SplitRevisionStub(channel).ProposePlan(
            control_plane_pb2.ProposePlanRequest(exclude_nodes=exclude, model=model)
        )
