"""`mec gateway`: the OpenAI API in front of the edge nodes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.compile import ensure_compiled, model_option, quantisation_option
from mec_apps.cli.joining import Joining, joining_options
from mec_apps.cli.obtain import ModelRequest, obtain_model, source_option, store_option
from mec_apps.cli.plane_address import member_grpc, member_grpc_option
from mec_apps.cli.process import (
    compiled_options,
    host_option,
    ready_option,
    remote_option,
    run_process,
    verbose_option,
)
from mec_apps.cli.rest_client import PlatformAddress, rest_options


@click.command(epilog="Example: mec gateway --port 8080")
@click.option(
    "--name", help="Name of this gateway, unique on the platform (default: that in --join, or gateway-HOSTNAME)."
)
@model_option
@quantisation_option
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port of the OpenAI API.")
@click.option(
    "--grpc-port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of gRPC Inference; 0 takes a free one.",
)
@click.option(
    "--encoder",
    help="A torch module (.pt2, or its compiled package) that makes rows of the model's width from pictures.",
)
@click.option("--context", default=2048, show_default=True, type=click.IntRange(16), help="Longest session, in tokens.")
@click.option("--max-sessions", default=32, show_default=True, type=click.IntRange(1, 10_000))
@click.option(
    "--platform-wait-s",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long to wait for the platform.",
)
@click.option("--site", default="", help="Where this gateway is; between sites, links are planned with as one.")
@click.option("--ue", default="", help="Radio device (UE) that this gateway is behind, as the radio network calls it.")
@source_option
@store_option
@compiled_options[0]
@compiled_options[1]
@rest_options
@member_grpc_option
@joining_options
@host_option
@remote_option
@click.option(
    "--open-api",
    is_flag=True,
    help="The OpenAI API is for everybody (default: with a certificate of its own, for who shows one of the same authority).",
)
@ready_option
@verbose_option
def gateway(
    name: str | None,
    model: str,
    quantisation: str,
    port: int,
    grpc_port: int,
    encoder: str | None,
    context: int,
    max_sessions: int,
    platform_wait_s: float,
    site: str,
    ue: str,
    source: str,
    store: Path | None,
    package: Path | None,
    artefact: Path | None,
    platform: PlatformAddress,
    platform_grpc: str | None,
    joining: Joining,
    host: str,
    allow_remote: bool,
    open_api: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run a gateway: the OpenAI API in front of the edge nodes."""
    from mec_apps.split_inference.gateway.agent import GatewayAgent, GatewaySettings

    name = joining.name_or(name, f"gateway-{socket.gethostname()}")
    identity, platform = joining.find(name, platform, allow_remote)
    platform_grpc = member_grpc(platform_grpc, platform.url)
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
            None,
            identity=identity,
        )
    )
    settings = GatewaySettings(
        name=name,
        package_dir=compiled.package,
        platform_url=platform.url,
        access=platform.access,
        platform_grpc=platform_grpc,
        host=host,
        http_port=port,
        grpc_port=grpc_port,
        context=context,
        encoder_dir=None if encoder is None else _encoder_package(encoder, store),
        max_sessions=max_sessions,
        allow_remote=allow_remote,
        open_api=open_api,
        identity=identity,
        platform_wait_s=platform_wait_s,
        store_dir=store,
        site=site,
        ue=ue,
    )

    def describe(agent: GatewayAgent) -> dict[str, Any]:
        return {"name": name, "openai": agent.openai_url, "grpc": agent.grpc_address}

    run_process("gateway", lambda: GatewayAgent(settings), describe, ready_file, verbose, private=True)


def _encoder_package(encoder: str, store: Path | None) -> Path:
    """The package's folder; compiled where a .pt2 file is named."""
    return Path(encoder) if Path(encoder).is_dir() else ensure_compiled(encoder, "auto", None, store).package
