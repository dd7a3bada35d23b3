"""Which other hosts `mec serve` shares services with, and how it reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from mec_apps.cli.option_groups import option_group, options_of
from mec_platform.peer_access import GrpcPeerAccess, PeerTls, read_client_secret
from mec_platform.registry.federation.peers import FederationSettings

_FILE = click.Path(path_type=Path, dir_okay=False)
_option = options_of("Other hosts")
_SETTINGS = FederationSettings()


@dataclass(frozen=True, slots=True)
class Peers:
    """What the options say, checked: how to reach each peer, by its name."""

    accesses: Mapping[str, GrpcPeerAccess]
    settings: FederationSettings


def _by_name(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise click.UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        if name in found:
            raise click.UsageError(f"{option} names {name!r} twice")
        found[name] = value
    return found


def _make(
    peer: tuple[str, ...],
    peer_ca: Path | None,
    peer_cert: Path | None,
    peer_key: Path | None,
    peer_credentials: tuple[str, ...],
    peer_platform: tuple[str, ...],
    peer_suspend_after_s: float,
) -> Peers:
    addresses = _by_name("--peer", peer)
    files, urls = _by_name("--peer-credentials", peer_credentials), _by_name("--peer-platform", peer_platform)
    for option, names in (("--peer-credentials", files), ("--peer-platform", urls)):
        for name in names:
            if name not in addresses:
                raise click.UsageError(f"{option} names {name!r}, which is no --peer")
    for name in addresses:
        if (name in files) != (name in urls):
            raise click.UsageError(f"--peer-credentials and --peer-platform of {name!r} belong together")
        if ":" not in addresses[name]:
            raise click.UsageError(f"--peer takes NAME=HOST:PORT, not {name}={addresses[name]}")
    if (peer_cert is None) != (peer_key is None):
        raise click.UsageError("--peer-cert and --peer-key belong together")
    if peer_ca is None and peer_cert is not None:
        raise click.UsageError("--peer-cert needs --peer-ca")
    tls = None if peer_ca is None else PeerTls(ca=peer_ca, certificate=peer_cert, key=peer_key)
    accesses = {
        name: GrpcPeerAccess(
            address, tls=tls, secret=read_client_secret(Path(files[name]), urls[name]) if name in files else None
        )
        for name, address in addresses.items()
    }
    return Peers(accesses, FederationSettings(suspend_after_s=peer_suspend_after_s))


peer_options = option_group(
    "peers",
    _make,
    _option(
        "--peer",
        multiple=True,
        metavar="NAME=HOST:PORT",
        help="Share services with the MEC host of this --host-name, whose gRPC is there; repeatable. It has to name this host.",
    ),
    _option("--peer-ca", type=_FILE, help="Reach peers over TLS; this authority has signed their certificates (PEM)."),
    _option("--peer-cert", type=_FILE, help="Own certificate for peers with mutual TLS (PEM)."),
    _option("--peer-key", type=_FILE, help="Its key."),
    _option(
        "--peer-credentials",
        multiple=True,
        metavar="NAME=FILE",
        help="Credentials at a peer that asks for tokens, made there with mec client create HOST_NAME --scope mec_federation.",
    ),
    _option(
        "--peer-platform", multiple=True, metavar="NAME=URL", help="REST address of that peer, which gives tokens."
    ),
    _option(
        "--peer-suspend-after-s",
        default=_SETTINGS.suspend_after_s,
        show_default=True,
        type=click.FloatRange(0),
        help="Services of a peer that is not heard of for so long are SUSPENDED; 0: never.",
    ),
)
