"""`mec audit`: who changed what on a platform."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from yarl import URL

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options


@click.command(epilog="Example: mec audit --limit 20")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many changes.")
@click.option("--before", type=click.IntRange(1), help="Only changes of lower revisions than this one.")
@rest_options
@json_option
def audit(limit: int, before: int | None, platform: PlatformAddress, as_json: bool) -> None:
    """Who changed what, newest first. An actor is a client's id; the platform itself is `platform`."""
    query: dict[str, Any] = {"limit": limit} | ({} if before is None else {"before": before})
    page = run_async(call(platform, "GET", str(URL("admin/v1/audit").with_query(query))))
    if as_json:
        print_json(page)
        return
    for record in page["records"]:
        at = datetime.fromtimestamp(record["atUnixNs"] / 1e9, UTC).isoformat(timespec="seconds")
        click.echo(f"{record['revision']}  {at}  {record['actor']}  {record['kind']}  {record['subject']}")
    if "next" in page:
        click.echo(f"older ones: --before {page['next']}")
