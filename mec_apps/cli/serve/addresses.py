"""Where `mec serve` listens, and where its host is."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_apps.cli.requests import CliError
from mec_platform.domain.locality import LocalityError, LocalityTree
from mec_platform.locality_file import read_locality_tree

_PORT = click.IntRange(0, 65535)
_option = options_of("Addresses")


@dataclass(frozen=True, slots=True)
class Addresses:
    """What the options say, checked."""

    host: str
    rest_port: int
    grpc_port: int
    registry_port: int | None
    allow_remote: bool
    host_name: str
    localities: LocalityTree | None


def _make(
    host: str,
    rest_port: int,
    grpc_port: int,
    registry_port: int | None,
    allow_remote: bool,
    localities: Path | None,
    host_name: str | None,
) -> Addresses:
    name = host_name or socket.gethostname()
    tree = None if localities is None else _read_localities(localities, name)
    return Addresses(host, rest_port, grpc_port, registry_port, allow_remote, name, tree)


def _read_localities(path: Path, host_name: str) -> LocalityTree:
    """Raises LocalityError where the file makes no tree, CliError where this host has no place in it."""
    tree = read_locality_tree(path)
    try:
        tree.locality_of(mec_host=host_name)
    except LocalityError as error:
        raise CliError(f"{path} does not know this host: {error}; name it with --host-name") from error
    return tree


address_options = option_group(
    "addresses",
    _make,
    _option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    _option("--rest-port", default=8081, show_default=True, type=_PORT, help="Mp1, dashboard, /metrics."),
    _option("--grpc-port", default=50051, show_default=True, type=_PORT, help="Nodes and gateways."),
    _option(
        "--registry-port",
        type=_PORT,
        help="gRPC ServiceRegistry over TLS, on --host, with --tls-cert (default: with nodes and gateways only).",
    ),
    _option(
        "--allow-remote",
        is_flag=True,
        help="The network that reaches --host proves itself who is who: gRPC speaks in the clear and asks for nothing.",
    ),
    _option(
        "--localities",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file that says where the hosts are, as deploy/examples/localities.toml (default: this host alone).",
    ),
    _option("--host-name", help="This host's name in --localities (default: the machine's name)."),
)
