"""`mec reconfigure`: an operator's own plan, applied live."""

from __future__ import annotations

import re

import click

from mec_apps.cli.plane_address import PlaneAddress, plane_channel, plane_options
from mec_apps.cli.requests import (
    CliError,
    as_dict,
    deployment_option,
    json_option,
    print_json,
    run_async,
)
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc, types_pb2

_STAGE = re.compile(r"(?P<node>[^=\s]+)=(?P<start>\d+):(?P<stop>\d+)")


@click.command(epilog="Example: mec reconfigure edge-1=0:12 edge-3=12:30")
@click.argument("stages", nargs=-1, required=True, metavar="NODE=START:STOP...")
@click.option("--reason", default="asked for by an operator", show_default=True)
@deployment_option
@plane_options
@json_option
def reconfigure(stages: tuple[str, ...], reason: str, model: str, platform_grpc: PlaneAddress, as_json: bool) -> None:
    """Put layer ranges (half-open, in order) on nodes while answers go on."""
    request = control_plane_pb2.ApplyPlanRequest(stages=[_stage(text) for text in stages], reason=reason, model=model)
    done = run_async(_apply(platform_grpc, request))
    if as_json:
        print_json(as_dict(done))
        return
    click.echo(
        f"{done.outcome}: epoch {done.plan.epoch} ({done.kind}) in {done.switch_ms:.0f} ms; {done.sessions} sessions, "
        f"longest pause {done.pause_ms_max:.1f} ms, {done.moved_bytes} bytes of KV moved"
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
        return await control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel).ApplyPlan(request, timeout=120)
