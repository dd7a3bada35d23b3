"""`mec radio`: what the platform knows of UEs in the radio network, over its administration API."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.live import Live

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, platform_rest, rest_options
from mec_apps.cli.tables import make_table, print_table

_HEADINGS = ("ue", "cell", "network", "rsrp dBm", "sinr dB", "round trip ms", "age s", "source")
_NONE = "no UEs: no RAN has reported yet; see mec serve --radio-trace"
PERIOD_S = 1.0


@click.command(epilog="Example: mec radio --watch")
@click.option("--watch", "follows", is_flag=True, help="Show it anew every second until Ctrl-C; a line of JSON each.")
@rest_options
@json_option
def radio(follows: bool, platform: PlatformAddress, as_json: bool) -> None:
    """UEs with their cell, reception and round trip, and where that comes from: a RAN, or the replay of a trace."""
    if follows:
        run_async(_follow(platform, as_json))
        return
    found = run_async(call(platform, "GET", "admin/v1/radio"))
    if as_json:
        print_json(found)
    elif found:
        print_table(_HEADINGS, map(_row, found))
    else:
        click.echo(_NONE)


async def _follow(platform: PlatformAddress, as_json: bool) -> None:
    async with platform_rest(platform) as session:
        with Live(console=Console(quiet=as_json), auto_refresh=False) as live:
            while True:
                found = msgspec.json.decode(await session.request("GET", "admin/v1/radio", None))
                if as_json:
                    click.echo(json.dumps(found))
                else:
                    live.update(make_table(_HEADINGS, map(_row, found)) if found else _NONE, refresh=True)
                await asyncio.sleep(PERIOD_S)


def _row(ue: dict[str, Any]) -> tuple[object, ...]:
    plmn = ue["plmn"]
    return (
        ue["ue"],
        ue["cell"],
        f"{plmn['mcc']}-{plmn['mnc']}",
        _figure(ue.get("rsrpDbm")),
        _figure(ue.get("sinrDb")),
        _figure(ue.get("roundTripMs")),
        f"{ue['ageS']:.1f}",
        ue["source"],
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
