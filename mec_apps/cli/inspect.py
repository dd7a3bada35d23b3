"""`mec status`, `mec watch`, `mec plan`: what the platform knows and would do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

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
from mec_platform.background import BackgroundTasks
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc


@click.command(epilog="Example: mec status --json")
@deployment_option
@plane_options
@json_option
def status(model: str, platform_grpc: PlaneAddress, as_json: bool) -> None:
    """Nodes, gateways, links and the committed plan."""
    snapshot = run_async(_snapshot(platform_grpc, model))
    if as_json:
        print_json(as_dict(snapshot))
        return
    console = Console()
    if snapshot.HasField("plan"):
        plan_ = plan_from_message(snapshot.plan)
        console.print(f"plan {plan_.epoch} of {plan_.model}: {plan_.describe()}", markup=False)
    else:
        console.print("no plan yet")
    console.print(_members(snapshot))
    console.print(_links(snapshot))


def _members(snapshot: control_plane_pb2.Snapshot) -> Table:
    table = Table(
        "member", Column("address", no_wrap=True), "target", "trusted", "threads", "MB", "us/block", "sessions"
    )
    for member in snapshot.members:
        if member.role == control_plane_pb2.MEMBER_ROLE_NODE:
            facts = (
                member.hardware.compile_target,
                "yes" if member.trusted else "no",
                str(member.hardware.threads),
                f"{member.memory_bytes / 1e6:.0f}",
                f"{member.block_time_us:.0f}",
            )
        else:
            facts = ("gateway", "", "", "", "")
        table.add_row(member.name, member.address, *facts, str(member.sessions))
    return table


def _links(snapshot: control_plane_pb2.Snapshot) -> Table:
    table = Table("link", "MB/s", "round trip ms", "")
    for member in snapshot.members:
        for link in sorted(member.links, key=lambda each: each.peer):
            table.add_row(
                f"{member.name} -> {link.peer}",
                f"{link.bytes_per_s / 1e6:.3g}",
                f"{link.round_trip_ms:.2g}",
                "emulated" if link.emulated else "",
            )
    return table


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


@click.command(epilog="Example: mec plan --exclude edge-2")
@click.option("--exclude", multiple=True, help="Leave a node out (repeatable).")
@deployment_option
@plane_options
@json_option
def plan(exclude: tuple[str, ...], model: str, platform_grpc: PlaneAddress, as_json: bool) -> None:
    """The best plan for the world as it is, explained; nothing is changed."""
    proposal = run_async(_propose(platform_grpc, model, exclude))
    if as_json:
        print_json(as_dict(proposal))
        return
    for line in proposal.explanation:
        click.echo(line)


async def _snapshot(address: PlaneAddress, model: str) -> control_plane_pb2.Snapshot:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.CapacityProfilerStub(channel).GetSnapshot(
            control_plane_pb2.GetSnapshotRequest(model=model)
        )


async def _propose(address: PlaneAddress, model: str, exclude: tuple[str, ...]) -> control_plane_pb2.ProposePlanReply:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.SplitRevisionStub(channel).ProposePlan(
            control_plane_pb2.ProposePlanRequest(exclude_nodes=exclude, model=model)
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
        _print_line(as_json, "decision", decision, f"{decision.at_s:10.1f}  {decision.kind:8}  {decision.reason}")


async def _follow_reconfigurations(channel: Any, model: str, as_json: bool) -> None:
    stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
    async for done in stub.WatchReconfigurations(control_plane_pb2.WatchReconfigurationsRequest(model=model)):
        plan_ = plan_from_message(done.plan)
        text = (
            f"{done.at_s:10.1f}  {done.outcome:9}  epoch {plan_.epoch}: {plan_.describe()}; pause {done.pause_ms_max:.1f} ms, "
            f"moved {done.moved_bytes} bytes, replayed {done.replayed_tokens} tokens {done.error}"
        )
        _print_line(as_json, "reconfiguration", done, text)


def _print_line(as_json: bool, what: str, message: Any, text: str) -> None:
    click.echo(json.dumps({what: as_dict(message)}) if as_json else text)
