"""`mec serve`: the MEC platform with its dashboard."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from mec_apps.cli.process import host_option, ready_option, remote_option, run_process, verbose_option
from mec_apps.cli.requests import CliError
from mec_apps.dashboard.platform_state import PlatformState
from mec_apps.dashboard.server import add_dashboard_routes
from mec_platform.application import Platform, PlatformSettings
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.control_plane.tick import ControlSettings
from mec_platform.domain.locality import LocalityError, LocalityTree
from mec_platform.locality_file import read_locality_tree


@click.command(epilog="Example: mec serve --state ~/mec.sqlite --expected-nodes 3")
@host_option
@click.option(
    "--rest-port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="Mp1, dashboard, /metrics."
)
@click.option("--grpc-port", default=50051, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file that keeps registry and plans (default: in memory).",
)
@click.option(
    "--expected-nodes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Nodes that the first plan waits for.",
)
@click.option(
    "--cooldown-s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Least time between two changes of a plan.",
)
@click.option(
    "--kv-reserve",
    default=2048,
    show_default=True,
    type=click.IntRange(0),
    help="KV positions that every stage must have room for.",
)
@click.option("--alpha", default=1.0, show_default=True, type=click.FloatRange(0), help="Weight of latency.")
@click.option(
    "--beta", default=0.5, show_default=True, type=click.FloatRange(0), help="Weight of imbalance (throughput)."
)
@click.option(
    "--gamma-ms", default=4.0, show_default=True, type=click.FloatRange(0), help="Weight of privacy exposure."
)
@click.option(
    "--manual",
    is_flag=True,
    help="Only say what would be changed (but replace nodes that are lost); see mec reconfigure.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Content store that nodes fetch from (default: the user's cache, $MEC_CACHE).",
)
@click.option(
    "--prefer-peers", is_flag=True, help="Nodes fetch from each other first, from here what none of them has."
)
@click.option(
    "--localities",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file that says where the hosts are, as deploy/examples/localities.toml (default: this host alone).",
)
@click.option("--host-name", help="This host's name in --localities (default: the machine's name).")
@remote_option
@ready_option
@verbose_option
def serve(
    host: str,
    rest_port: int,
    grpc_port: int,
    state: Path | None,
    expected_nodes: int,
    cooldown_s: float,
    kv_reserve: int,
    alpha: float,
    beta: float,
    gamma_ms: float,
    manual: bool,
    store: Path | None,
    prefer_peers: bool,
    localities: Path | None,
    host_name: str | None,
    allow_remote: bool,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run the MEC platform: Mp1, service registry, control plane, dashboard."""
    host_name = host_name or socket.gethostname()
    settings = PlatformSettings(
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        state=state or ":memory:",
        host_name=host_name,
        localities=None if localities is None else _read_localities(localities, host_name),
        manual=manual,
        allow_remote=allow_remote,
        store_dir=store,
        prefer_peers=prefer_peers,
        control=ControlSettings(
            planning=PlanSettings(alpha=alpha, beta=beta, gamma_ms=gamma_ms, kv_tokens_reserved=kv_reserve),
            policy=PolicySettings(expected_nodes=expected_nodes, cooldown_s=cooldown_s),
        ),
    )

    def extend(app: web.Application, grpc_address: str) -> None:
        state_source = PlatformState(grpc_address)
        add_dashboard_routes(app, state_source.read)
        app.on_cleanup.append(state_source.close)

    def make() -> Platform:
        return Platform(settings, extend)

    def describe(platform: Platform) -> dict[str, Any]:
        return {
            "rest": f"http://{platform.rest_address}",
            "grpc": platform.grpc_address,
            "dashboard": f"http://{platform.rest_address}/dashboard/",
        }

    run_process("platform", make, describe, ready_file, verbose)


def _read_localities(path: Path, host_name: str) -> LocalityTree:
    """Raises LocalityError where the file makes no tree, CliError where this host has no place in it."""
    tree = read_locality_tree(path)
    try:
        tree.locality_of(mec_host=host_name)
    except LocalityError as error:
        raise CliError(f"{path} does not know this host: {error}; name it with --host-name") from error
    return tree
