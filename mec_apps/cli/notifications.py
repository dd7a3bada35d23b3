"""`mec notifications`: what could not be delivered, over the platform's administration API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import click

from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_apps.cli.tables import print_table

SUBSCRIPTIONS = "admin/v1/subscriptions"

_id_argument = click.argument("subscription_id", metavar="SUBSCRIPTION_ID")


@click.group(epilog="Example: mec notifications list")
def notifications() -> None:
    """Notifications that could not be delivered: list them, have them tried again, drop them."""


@notifications.command("list", epilog="Example: mec notifications list --json")
@click.option("--subscription", "subscription_id", help="Only those of this subscription.")
@rest_options
@json_option
def list_command(subscription_id: str | None, platform: PlatformAddress, as_json: bool) -> None:
    """Dead letters: which notification, to whom, and why it was given up."""
    query = f"?{urlencode({'subscriptionId': subscription_id})}" if subscription_id else ""
    letters = run_async(call(platform, "GET", f"admin/v1/dead_letters{query}"))
    if as_json:
        print_json(letters)
    elif letters:
        print_table(("SUBSCRIPTION", "TARGET", "NOTIFICATION", "REASON"), map(_row, letters))
    else:
        click.echo("no dead letters: every notification was delivered, or is still being tried")


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    kind = letter["notification"]["notificationType"]
    return letter["subscriptionId"], letter["target"], kind, letter["reason"]


@notifications.command(epilog="Example: mec notifications retry 5c3dcb5b-6e1f-4d0c-9a5e-2f1d8c0b7a11")
@_id_argument
@rest_options
def retry(subscription_id: str, platform: PlatformAddress) -> None:
    """Try a subscription's dead letters again, before what waits behind them."""
    run_async(call(platform, "POST", f"{SUBSCRIPTIONS}/{quote(subscription_id, safe='')}/retry"))
    click.echo(f"the dead letters of {subscription_id} are tried again")


@notifications.command(epilog="Example: mec notifications drop 5c3dcb5b-6e1f-4d0c-9a5e-2f1d8c0b7a11")
@_id_argument
@rest_options
def drop(subscription_id: str, platform: PlatformAddress) -> None:
    """Forget a subscription's dead letters."""
    run_async(call(platform, "DELETE", f"{SUBSCRIPTIONS}/{quote(subscription_id, safe='')}/dead_letters"))
    click.echo(f"the dead letters of {subscription_id} are dropped")
