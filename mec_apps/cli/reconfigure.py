"""`mec reconfigure`: an operator's own plan, applied live."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
import grpc.aio

from mec_apps.cli.plane_address import PlaneAddress, plane_channel, plane_options
from mec_apps.cli.requests import (
    CliError,
    as_dict,
    deployment_option,
    json_option,
    print_json,
    run_async,
)
from mec_platform.rpc.convert import plan_from_message
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

_STAGE = re.compile(r"(?P<node>[^=\s]+)=(?P<start>\d+):(?P<stop>\d+)")


@click.command(epilog="Example: mec reconfigure edge-1=0:12 edge-3=12:30")
@click.argument("stages", nargs=-1, metavar="[NODE=START:STOP]...")
@click.option("--reason", default="asked for by an operator", show_default=True)
@click.option("--chain", type=click.IntRange(min=0), help="The chain whose plan is replaced, where there are several.")
@click.option(
    "--add-chain", is_flag=True, help="Add a chain on free nodes; without stages, the best that the platform finds."
)
@click.option("--drop-chain", type=click.IntRange(min=0), help="Take this chain away; its answers go on on the others.")
@click.option("--abort", is_flag=True, help="Give up the change that is under way; the old plan stays.")
@deployment_option
@plane_options
@json_option
def reconfigure(
    stages: tuple[str, ...],
    reason: str,
    chain: int | None,
    add_chain: bool,
    drop_chain: int | None,
    abort: bool,
    model: str,
    platform_grpc: PlaneAddress,
    as_json: bool,
) -> None:
    """Put layer ranges (half-open, in order) on nodes while answers go on."""
    if sum((chain is not None, add_chain, drop_chain is not None)) > 1:
        raise click.UsageError("--chain, --add-chain and --drop-chain exclude each other")
    if abort:
        if stages or add_chain or drop_chain is not None:
            raise click.UsageError("--abort ends the change that is under way: leave the rest out, but for --chain")
        give_up = control_plane_pb2.AbortReconfigurationRequest(chain=chain, reason=reason, model=model)
        done = run_async(_abort(platform_grpc, give_up))
    elif drop_chain is not None:
        if stages:
            raise click.UsageError("a chain is dropped as it is: leave the stages out")
        end = control_plane_pb2.DropChainRequest(chain=drop_chain, reason=reason, model=model)
        done = run_async(_drop(platform_grpc, end))
    elif stages or add_chain:
        request = control_plane_pb2.ApplyPlanRequest(
            stages=[_stage(text) for text in stages], reason=reason, model=model, chain=chain, add_chain=add_chain
        )
        done = run_async(_apply(platform_grpc, request))
    else:
        raise click.UsageError("stages are missing; write NODE=START:STOP, as in edge-1=0:12")
    if as_json:
        print_json(as_dict(done))
        return
    of_chain = f" of chain {done.plan.chain}" if done.plan.chain or add_chain or drop_chain is not None else ""
    click.echo(
        f"{done.outcome}: epoch {done.plan.epoch}{of_chain} ({done.kind}) in {done.switch_ms:.0f} ms; "
        f"{done.sessions} sessions, longest pause {done.pause_ms_max:.1f} ms, {done.moved_bytes} bytes of KV moved\n"
        f"{done.transfer}"
    )


def _stage(text: str) -> types_pb2.Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise CliError(f"{text!r} is no stage; write NODE=START:STOP, as in edge-1=0:12")
    layers = types_pb2.LayerRange(start=int(match["start"]), stop=int(match["stop"]))
    return types_pb2.Stage(node=match["node"], layers=layers)


async def _apply(
    address: PlaneAddress, request: control_plane_pb2.ApplyPlanRequest
) -> control_plane_pb2.Reconfiguration:
    async with plane_channel(address) as channel:
        if not request.stages:
            request.stages.extend(await _best_of_free_nodes(channel, request.model))
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel).ApplyPlan(request, timeout=120)


async def _best_of_free_nodes(channel: grpc.aio.Channel, model: str) -> Sequence[types_pb2.Stage]:
    """What the platform would put on the nodes that no chain uses."""
    snapshot = await control_plane_pb2_grpc.CapacityProfilerStub(channel).GetSnapshot(
        control_plane_pb2.GetSnapshotRequest(model=model)
    )
    taken = [node for plan in (snapshot.plan, *snapshot.replicas) for node in plan_from_message(plan).members]
    request = control_plane_pb2.ProposePlanRequest(model=model, exclude_nodes=taken)
    return (await control_plane_pb2_grpc.SplitRevisionStub(channel).ProposePlan(request)).plan.stages


async def _drop(
    address: PlaneAddress, request: control_plane_pb2.DropChainRequest
) -> control_plane_pb2.Reconfiguration:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel).DropChain(request, timeout=120)


async def _abort(
    address: PlaneAddress, request: control_plane_pb2.AbortReconfigurationRequest
) -> control_plane_pb2.Reconfiguration:
    async with plane_channel(address) as channel:
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel).AbortReconfiguration(
            request, timeout=120
        )
