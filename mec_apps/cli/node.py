"""`mec node`: an edge node."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import click

from compiler.errors import TargetError
from compiler.targets.choice import detect_local_target, find_target
from mec_apps.cli.compile import model_option, quantisation_option
from mec_apps.cli.hardware import print_hardware
from mec_apps.cli.joining import Joining, joining_options
from mec_apps.cli.obtain import ModelRequest, obtain_model, source_option, store_option
from mec_apps.cli.plane_address import member_grpc, member_grpc_option
from mec_apps.cli.process import (
    compiled_options,
    host_option,
    kv_compression_option,
    ready_option,
    remote_option,
    run_process,
    verbose_option,
)
from mec_apps.cli.requests import CliError, json_option
from mec_apps.cli.rest_client import PlatformAddress, rest_options
from mec_apps.split_inference.link_shaper import EmulatedLink
from mec_apps.split_inference.node.cores import available_cores


def _read_address(context: click.Context, parameter: click.Parameter, text: str) -> str:
    if text and re.fullmatch(r"([^:/\s]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", text) is None:
        raise click.BadParameter("write HOST:PORT, as in 192.0.2.11:50052")
    return text


@click.command(epilog="Example: mec node --name edge-1 --threads 1 --memory-mib 64")
@click.option("--name", help="Name of this node, unique on the platform (default: that in --join, or the host name).")
@model_option
@quantisation_option
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads to compute with (default: all cores the process may use).",
)
@click.option(
    "--memory-mib", default=1024, show_default=True, type=click.IntRange(1), help="Memory offered to weights of stages."
)
@click.option(
    "--kv-tokens", default=16384, show_default=True, type=click.IntRange(32), help="KV positions, over all sessions."
)
@click.option("--context", default=2048, show_default=True, type=click.IntRange(16), help="Longest session, in tokens.")
@kv_compression_option
@click.option("--untrusted", is_flag=True, help="This node must not see raw tokens and shallow activations.")
@click.option(
    "--emulate", is_flag=True, help="Permit emulated links and CPU shares (gRPC EdgeNode.Emulate); reports say so."
)
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="gRPC port; 0 takes a free one."
)
@click.option(
    "--advertise",
    default="",
    metavar="HOST:PORT",
    callback=_read_address,
    help="Where others reach the gRPC port, if not where it listens: behind a forwarded port or a proxy.",
)
@click.option(
    "--metrics-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of /metrics; 0 takes a free one.",
)
@click.option(
    "--platform-wait-s",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to wait for the platform.",
)
@click.option("--site", default="", help="Where this node is; between sites, links are planned with as one.")
@click.option(
    "--machine",
    default=socket.gethostname(),
    help="Machine whose compute and memory this node shares with others of that name (default: host name).",
)
@click.option("--group", default="", help="What fails together with this node: a rack, a power feed.")
@click.option("--ue", default="", help="Radio device (UE) that this node is behind, as the radio network calls it.")
@click.option(
    "--emulate-link",
    "emulated_links",
    multiple=True,
    metavar="PEER=BYTES_PER_S[,DELAY_MS]",
    help="EMULATE a link to a peer from the start ('*' for all); repeatable.",
)
@click.option(
    "--emulate-cpu-share", default=1.0, type=click.FloatRange(0, 1, min_open=True), help="EMULATE a slower CPU."
)
@click.option(
    "--target",
    help="Row of the target table to run, such as that of this machine's GPU (default: the best for its CPU; see --show-hardware).",
)
@source_option
@store_option
@click.option("--show-hardware", is_flag=True, help="Print what this machine is and its compile target, and end.")
@json_option
@compiled_options[0]
@compiled_options[1]
@rest_options
@member_grpc_option
@joining_options
@host_option
@remote_option
@ready_option
@verbose_option
def node(
    name: str | None,
    model: str,
    quantisation: str,
    threads: int | None,
    memory_mib: int,
    kv_tokens: int,
    context: int,
    kv_compression: str,
    untrusted: bool,
    emulate: bool,
    port: int,
    advertise: str,
    metrics_port: int,
    platform_wait_s: float,
    site: str,
    machine: str,
    group: str,
    ue: str,
    emulated_links: tuple[str, ...],
    emulate_cpu_share: float,
    target: str | None,
    source: str,
    store: Path | None,
    show_hardware: bool,
    as_json: bool,
    package: Path | None,
    artefact: Path | None,
    platform: PlatformAddress,
    platform_grpc: str | None,
    joining: Joining,
    host: str,
    allow_remote: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run an edge node: it joins the platform and computes the layer ranges that it is given."""
    if show_hardware:
        print_hardware(as_json)
        return
    from mec_apps.split_inference.node.agent import NodeAgent
    from mec_apps.split_inference.node.kv_compression import KvCompression
    from mec_apps.split_inference.node.machine import read_machine
    from mec_apps.split_inference.node.settings import NodeSettings

    name = joining.name_or(name, socket.gethostname())
    identity, platform = joining.find(name, platform, allow_remote)
    platform_grpc = member_grpc(platform_grpc, platform.url)
    own_target = find_target(target).name if target else _own_target()
    facts = read_machine(name, own_target)
    compiled = obtain_model(
        ModelRequest(
            name,
            model,
            quantisation,
            package,
            artefact,
            source,
            store,
            platform_grpc,
            platform_wait_s,
            facts,
            target,
            identity,
        )
    )
    settings = NodeSettings(
        name=name,
        package_dir=compiled.package,
        artefact_dir=compiled.artefact,
        platform_url=platform.url,
        access=platform.access,
        platform_grpc=platform_grpc,
        host=host,
        port=port,
        advertise=advertise,
        metrics_port=metrics_port,
        threads=threads or available_cores(),
        memory_bytes=memory_mib << 20,
        kv_tokens=kv_tokens,
        context=context,
        kv_compression=KvCompression(kv_compression),
        trusted=not untrusted,
        emulate=emulate or bool(emulated_links) or emulate_cpu_share < 1,
        emulated_links=dict(_emulated_link(text) for text in emulated_links),
        emulated_cpu_share=emulate_cpu_share,
        allow_remote=allow_remote,
        identity=identity,
        platform_wait_s=platform_wait_s,
        store_dir=store,
        target=own_target,
        site=site,
        machine=machine,
        group=group,
        ue=ue,
    )

    def describe(agent: NodeAgent) -> dict[str, Any]:
        return {"name": name, "grpc": agent.address, "metrics": agent.metrics_url}

    run_process("node", lambda: NodeAgent(settings), describe, ready_file, verbose, private=True)


def _own_target() -> str:
    """The row that this machine would compile for; "" where none fits."""
    try:
        return detect_local_target()
    except TargetError:
        return ""


def _emulated_link(text: str) -> tuple[str, EmulatedLink]:
    peer, _, numbers = text.partition("=")
    rate, _, delay_ms = numbers.partition(",")
    try:
        link = EmulatedLink(float(rate), float(delay_ms or 0) / 1e3)
    except ValueError:
        link = EmulatedLink(-1)
    if not peer or link.bytes_per_s < 0 or link.delay_s < 0:
        raise CliError(f"--emulate-link {text!r}: write PEER=BYTES_PER_S[,DELAY_MS], as in '*=12.5e6,2'")
    return peer, link
