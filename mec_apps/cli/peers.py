"""`mec peers`: the hosts that share their services with a platform, over its administration API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options


@click.command(epilog="Example: mec peers --json")
@rest_options
@json_option
def peers(platform: PlatformAddress, as_json: bool) -> None:
    """The hosts that share their services with the platform, and how that goes."""
    found = run_async(call(platform, "GET", "admin/v1/peers"))
    if as_json:
        print_json(found)
    elif found:
        Console(soft_wrap=True).print(_table(found))
    else:
        click.echo("no peers: this host shares its services with no other; see mec serve --peer")


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("PEER", "ADDRESS", "STATE", "SERVICES", "REFUSED", "LAG", "LISTINGS", "LAST CONTACT", "ERROR"):
        table.add_column(heading)
    for peer in found:
        cells = (
            peer["name"],
            peer["address"],
            _state(peer),
            str(peer["services"]),
            str(len(peer["refusedServices"])),
            str(peer["lag"]),
            str(sum(peer["listings"].values())),
            _time(peer.get("lastContactSeconds")),
            peer.get("error", ""),
        )
        # As they are: what a peer says of itself must not be read as markup.
        table.add_row(*map(Text, cells))
    return table


def _state(peer: dict[str, Any]) -> str:
    if peer["suspended"]:
        return "suspended"
    if not peer["connected"]:
        return "away"
    return "connected" if peer["follows"] else "connected, does not follow"


def _time(unix_s: int | None) -> str:
    return "never" if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
