"""`mec peers`: the hosts that share their services with a platform, over its administration API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_apps.cli.tables import print_table

_HEADINGS = ("peer", "address", "state", "services", "refused", "lag", "listings", "last contact", "error")


@click.command(epilog="Example: mec peers --json")
@rest_options
@json_option
def peers(platform: PlatformAddress, as_json: bool) -> None:
    """The hosts that share their services with the platform, and how that goes."""
    found = run_async(call(platform, "GET", "admin/v1/peers"))
    if as_json:
        print_json(found)
    elif found:
        print_table(_HEADINGS, map(_row, found))
    else:
        click.echo("no peers: this host shares its services with no other; see mec serve --peer")


def _row(peer: dict[str, Any]) -> tuple[object, ...]:
    return (
        peer["name"],
        peer["address"],
        _state(peer),
        peer["services"],
        len(peer["refusedServices"]),
        peer["lag"],
        sum(peer["listings"].values()),
        _time(peer.get("lastContactSeconds")),
        peer.get("error", ""),
    )


def _state(peer: dict[str, Any]) -> str:
    if peer["suspended"]:
        return "suspended"
    if not peer["connected"]:
        return "away"
    return "connected" if peer["follows"] else "connected, does not follow"


def _time(unix_s: int | None) -> str:
    return "never" if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
