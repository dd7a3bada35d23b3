"""`mec serve`: the MEC platform with its dashboard."""

from __future__ import annotations

import gc
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
from mec_apps.cli.serve.peers import Peers, peer_options
from mec_apps.cli.serve.radio import radio_options
from mec_apps.cli.serve.security import Security, quota_options, security_options
from mec_apps.cli.state_address import EtcdAccess, etcd_options
from mec_apps.dashboard.platform_state import PlatformState
from mec_apps.dashboard.server import add_dashboard_routes
from mec_platform.application import Platform, PlatformSettings
from mec_platform.domain.quotas import Quotas
from mec_platform.radio_access import RadioSettings

EXAMPLES = """\b
On this machine alone, without authentication:
  mec serve --state ~/mec.sqlite --expected-nodes 3
For a network, with TLS and tokens:
  mec certs init
  mec certs issue platform --host mec.example
  mec serve --host 0.0.0.0 --tls-cert mec-certs/platform.crt --tls-key mec-certs/platform.key \\
      --public-url https://mec.example:8081 --state ~/mec.sqlite
  mec client create app-1 --platform https://mec.example:8081 --ca mec-certs/ca.crt \\
      --credentials ~/mec.sqlite.operator.json --output app-1.json
With nodes and gateways on other machines, which join by tokens:
  mec serve --host 192.0.2.10 --tls-cert mec-certs/platform.crt --tls-key mec-certs/platform.key \\
      --member-ca-cert mec-certs/ca.crt --member-ca-key mec-certs/ca.key --state ~/mec.sqlite
  mec join-token create edge-1 --platform https://192.0.2.10:8081 --ca mec-certs/ca.crt \\
      --credentials ~/mec.sqlite.operator.json
Several replicas over one etcd, each on a machine of its own:
  mec serve --state etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/mec --public-url https://mec.example ...
"""


GC_THRESHOLDS = 10_000, 20, 10
"""For `gc.set_threshold`: rarer than by default, since the registry's state is a great many values that stay and have no
cycles. Looking for some among them took 30 % of the time of a registration, and stopped everything for up to 170 ms.
"""


class _LongLivedPlatform(Platform):
    """Cyclic garbage is not looked for while the state is read, nor later in it: that took about a third of the start with
    100,000 services, and all of it stays. What of it is replaced goes as soon as nobody refers to it, since it has no cycles.
    """

    async def start(self) -> None:
        gc.disable()
        try:
            await super().start()
        finally:
            gc.enable()
        gc.freeze()


@click.command(cls=GroupedCommand, epilog=EXAMPLES)
@address_options
@callback_options
@security_options
@quota_options
@control_options
@host_options
@etcd_options
@peer_options
@radio_options
@click.option(
    "--state",
    metavar="PATH|ETCD",
    help="What keeps registry and plans: a SQLite file, or for several replicas"
    " etcd://HOST:PORT[,HOST:PORT...]/PREFIX (default: in memory).",
)
@click.option(
    "--seed",
    "seeds",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of application instances to make where they are not there, as deploy/examples/apps.toml.",
)
@ready_option
@verbose_option
def serve(
    addresses: Addresses,
    callbacks: Callbacks,
    security: Security,
    quotas: Quotas,
    control: Control,
    host: Host,
    etcd: EtcdAccess,
    peers: Peers,
    radio: RadioSettings,
    state: str | None,
    seeds: Path | None,
    ready_file: Path | None,
    verbose: bool,
) -> None:
    """Run the MEC platform: Mp1, service registry, control plane, dashboard."""
    gc.set_threshold(*GC_THRESHOLDS)
    settings = PlatformSettings(
        host=addresses.host,
        rest_port=addresses.rest_port,
        grpc_port=addresses.grpc_port,
        registry_port=addresses.registry_port,
        allow_remote=addresses.allow_remote,
        host_name=addresses.host_name,
        localities=addresses.localities,
        authenticate=security.authenticate,
        security=security.settings,
        quotas=quotas,
        tls=security.tls,
        member_ca=security.member_ca,
        public_uri=security.public_uri,
        operator_file=security.operator_file,
        seeds=seeds,
        state=etcd.place(state) if state else ":memory:",
        callback_allow=callbacks.allowed,
        control=control.settings,
        policies=control.policies,
        manual=control.manual,
        store_dir=control.store_dir,
        prefer_peers=control.prefer_peers,
        ntp_servers=host.ntp_servers,
        ptp_masters=host.ptp_masters,
        data_planes=host.data_planes,
        peers=peers.accesses,
        federation=peers.settings,
        radio=radio,
    )
    run_process("platform", lambda: _LongLivedPlatform(settings, _add_dashboard), _describe, ready_file, verbose)


def _add_dashboard(app: web.Application, platform: Platform) -> None:
    state_source = PlatformState(platform.grpc_address, platform.identity)
    add_dashboard_routes(app, state_source.read)
    app.on_cleanup.append(state_source.close)


def _describe(platform: Platform) -> dict[str, Any]:
    registry = {"registry": platform.registry_address} if platform.registry_address else {}
    operator = {} if platform.operator_file is None else {"operator credentials": str(platform.operator_file)}
    return {
        "rest": platform.rest_uri,
        "grpc": platform.grpc_address,
        **registry,
        "dashboard": f"{platform.rest_uri}/dashboard/",
        **operator,
    }
