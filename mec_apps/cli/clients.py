"""`mec client`: credentials for whoever uses a platform's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mec_apps.cli.new_secrets import hand_over, secret_output_option
from mec_apps.cli.requests import json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_platform.domain.credentials import Scope

CLIENTS = "admin/v1/clients"
MP1 = (Scope.APP_SUPPORT.value, Scope.SERVICE_MANAGEMENT.value)


@click.group()
def client() -> None:
    """Clients of the APIs: who may get tokens, and for what.

    \b
    export MEC_CREDENTIALS=~/mec.sqlite.operator.json
    mec client create app-1 --output app-1.json
    mec client list
    """


@client.command(epilog="Example: mec client create app-1 --scope mec_service_mgmt --output app-1.json")
@click.argument("client_id", required=False)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help=f"What it may use (repeatable; default: {' and '.join(MP1)}).",
)
@secret_output_option
@rest_options
@json_option
def create(
    client_id: str | None, scopes: tuple[str, ...], output: Path | None, platform: PlatformAddress, as_json: bool
) -> None:
    """Make a client, under an id of the platform's making unless CLIENT_ID is given. Its secret is shown once."""
    message: dict[str, Any] = {"scopes": scopes or MP1}
    if client_id is not None:
        message["clientId"] = client_id
    _show(run_async(call(platform, "POST", CLIENTS, message)), output, as_json)


@client.command(epilog="Example: mec client secret app-1 --output app-1.json")
@click.argument("client_id")
@secret_output_option
@rest_options
@json_option
def secret(client_id: str, output: Path | None, platform: PlatformAddress, as_json: bool) -> None:
    """Give a client a new secret; the old one and its tokens are worth nothing from then on."""
    _show(run_async(call(platform, "POST", f"{CLIENTS}/{client_id}/secret")), output, as_json)


@client.command("list", epilog="Example: mec client list --json")
@rest_options
@json_option
def list_command(platform: PlatformAddress, as_json: bool) -> None:
    """List the clients."""
    clients = run_async(call(platform, "GET", CLIENTS))
    if as_json:
        print_json(clients)
        return
    for each in clients:
        click.echo(f"{each['clientId']}  {' '.join(each['scopes'])}")


@client.command(epilog="Example: mec client delete app-1")
@click.argument("client_id")
@rest_options
@json_option
def delete(client_id: str, platform: PlatformAddress, as_json: bool) -> None:
    """End a client and its tokens, at once."""
    run_async(call(platform, "DELETE", f"{CLIENTS}/{client_id}"))
    if as_json:
        print_json({"deleted": client_id})
    else:
        click.echo(f"client {client_id} is gone")


def _show(answer: dict[str, Any], output: Path | None, as_json: bool) -> None:
    shown: dict[str, Any] = dict(hand_over(answer, output))
    if as_json:
        print_json(shown | {"scopes": answer["scopes"]})
        return
    for name, value in shown.items():
        click.echo(f"{name}  {value}")
