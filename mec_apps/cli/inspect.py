"""`mec status`, `mec watch`: what the platform knows and does."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import click
from rich.console import Console

from mec_apps.cli.plane_address import PlaneAddress, plane_channel, plane_options, read_plane_address
from mec_apps.cli.requests import (
    as_dict,
    deployment_option,
    json_option,
    platform_grpc_option,
    print_json,
    run_async,
)
from mec_apps.cli.rest_client import PlatformAddress, rest_options
from mec_apps.cli.service_filters import ServiceFilters, filter_options
from mec_apps.cli.service_watch import watch_services
from mec_apps.cli.tables import print_made
from mec_apps.cli.world_tables import links_table, loads_table, members_table, radio_table
from mec_platform.background import BackgroundTasks
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2


@click.command(epilog="Example: mec status --json")
@deployment_option
@plane_options
@json_option
def status(model: str, platform_grpc: PlaneAddress, as_json: bool) -> None:
    """Nodes, gateways, links and the committed plan of every chain."""
    snapshot = run_async(_snapshot(platform_grpc, model))
    if as_json:
        print_json(as_dict(snapshot))
        return
    console = Console()
    if snapshot.HasField("plan"):
        for plan_ in map(plan_from_message, [snapshot.plan, *snapshot.replicas]):
            chain = f"chain {plan_.chain}, " if snapshot.replicas else ""
            console.print(f"{chain}plan {plan_.epoch} of {plan_.model}: {plan_.describe()}", markup=False)
    else:
        console.print("no plan yet")
    if snapshot.suspicion:
        console.print(snapshot.suspicion, markup=False)
    tables = [members_table(snapshot), loads_table(snapshot), links_table(snapshot)]
    if snapshot.radio:
        tables.append(radio_table(snapshot))
    for table in tables:
        console.print()
        print_made(table)


@click.command(epilog="Example: mec watch --services --model smollm2 --json")
@click.option("--all", "show_all", is_flag=True, help="Also every decision to keep the plan.")
@click.option("--services", "of_services", is_flag=True, help="Follow services instead: those there are, and changes.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    help="With --services: every change after this revision, instead of what is there now.",
)
@filter_options
@click.option(
    "--model",
    default="",
    help="The model whose deployment is meant, needed where several are deployed; "
    "with --services, only services that run it.",
)
@platform_grpc_option
@rest_options
@json_option
def watch(
    show_all: bool,
    of_services: bool,
    after: int | None,
    wanted: ServiceFilters,
    model: str,
    platform_grpc: str,
    platform: PlatformAddress,
    as_json: bool,
) -> None:
    """Follow decisions and reconfigurations until Ctrl-C; with --services, services.

    Services are followed over a lost connection too, each change once. Where the platform asks for credentials, --platform
    is where tokens come from; its port over TLS is --platform-grpc https://HOST:PORT.
    """
    if of_services:
        if show_all:
            raise click.UsageError("--all is about decisions, not services")
        wanted = replace(wanted, models=(model,) if model else ())
        run_async(watch_services(platform_grpc, platform, wanted, after, as_json))
        return
    if wanted or after is not None:
        raise click.UsageError("--name, --category, --state and --after need --services")
    run_async(_watch(read_plane_address(platform_grpc, platform.access), model, show_all, as_json))


async def _snapshot(address: PlaneAddress, model: str) -> control_plane_pb2.Snapshot:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.CapacityProfilerStub(channel).GetSnapshot(
            control_plane_pb2.GetSnapshotRequest(model=model)
        )


async def _watch(address: PlaneAddress, model: str, show_all: bool, as_json: bool) -> None:
    async with plane_channel(address) as channel, BackgroundTasks() as tasks:
        following = [
            tasks.start("decisions", _follow_decisions(channel, model, show_all, as_json)),
            tasks.start("reconfigurations", _follow_reconfigurations(channel, model, as_json)),
        ]
        await asyncio.gather(*following)


async def _follow_decisions(channel: Any, model: str, show_all: bool, as_json: bool) -> None:
    stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(channel)
    async for decision in stub.WatchDecisions(control_plane_pb2.WatchDecisionsRequest(model=model)):
        if decision.kind == "keep" and not show_all:
            continue
        text = f"{decision.at_s:10.1f}  {decision.kind:10}  {_of_chain(decision.plan)}{_why(decision)}"
        _print_line(as_json, "decision", decision, text)


def _why(decision: control_plane_pb2.Decision) -> str:
    """The reason, after what made the change due, and before what it costs."""
    trigger = f"[{decision.trigger}] " if decision.trigger else ""
    cost = f"; the change costs {decision.switch_cost_ms:.0f} ms" if decision.switch_cost_ms else ""
    return f"{trigger}{decision.reason}{cost}"


async def _follow_reconfigurations(channel: Any, model: str, as_json: bool) -> None:
    stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
    async for done in stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest(model=model)):
        plan_ = plan_from_message(done.plan)
        text = (
            f"{done.at_s:10.1f}  {done.outcome:9}  {_of_chain(done.plan)}epoch {plan_.epoch}: {plan_.describe()}; "
            f"pause {done.pause_ms_max:.1f} ms, moved {done.moved_bytes} bytes, replayed {done.replayed_tokens} tokens "
            f"{done.error}\n{'':12}{done.transfer}"
        )
        _print_line(as_json, "reconfiguration", done, text)


def _of_chain(plan_: types_pb2.SplitPlan) -> str:
    """Which chain is meant, where it is not the one that a deployment has from the start."""
    return f"chain {plan_.chain}: " if plan_.chain else ""


def _print_line(as_json: bool, what: str, message: Any, text: str) -> None:
    click.echo(json.dumps({what: as_dict(message)}) if as_json else text)
