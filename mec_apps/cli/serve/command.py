"""`mec serve`: the MEC platform with its dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from aiohttp import web

from mec_apps.cli.option_groups import GroupedCommand
from mec_apps.cli.process import ready_option, run_process, verbose_option
from mec_apps.cli.serve.addresses import Addresses, address_options
from mec_apps.cli.serve.callbacks import Callbacks, callback_options
from mec_apps.cli.serve.control import Control, control_options
from mec_apps.cli.serve.host import Host, host_options
from mec_apps.dashboard.platform_state import PlatformState
from mec_apps.dashboard.server import add_dashboard_routes
from mec_platform.application import Platform, PlatformSettings


@click.command(cls=GroupedCommand, epilog="Example: mec serve --state ~/mec.sqlite --expected-nodes 3")
@address_options
@callback_options
@control_options
@host_options
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file that keeps registry and plans (default: in memory).",
)
@ready_option
@verbose_option
def serve(
    addresses: Addresses,
    callbacks: Callbacks,
    control: Control,
    host: Host,
    state: Path | None,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run the MEC platform: Mp1, service registry, control plane, dashboard."""
    settings = PlatformSettings(
        host=addresses.host,
        rest_port=addresses.rest_port,
        grpc_port=addresses.grpc_port,
        allow_remote=addresses.allow_remote,
        host_name=addresses.host_name,
        localities=addresses.localities,
        state=state or ":memory:",
        callback_allow=callbacks.allowed,
        control=control.settings,
        manual=control.manual,
        store_dir=control.store_dir,
        prefer_peers=control.prefer_peers,
        ntp_servers=host.ntp_servers,
        ptp_masters=host.ptp_masters,
    )
    run_process("platform", lambda: Platform(settings, _add_dashboard), _describe, ready_file, verbose)


def _add_dashboard(app: web.Application, grpc_address: str) -> None:
    state_source = PlatformState(grpc_address)
    add_dashboard_routes(app, state_source.read)
    app.on_cleanup.append(state_source.close)


def _describe(platform: Platform) -> dict[str, Any]:
    return {
        "rest": f"http://{platform.rest_address}",
        "grpc": platform.grpc_address,
        "dashboard": f"http://{platform.rest_address}/dashboard/",
    }
