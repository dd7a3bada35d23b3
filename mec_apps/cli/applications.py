"""`mec app`: the life of application instances, over the platform's administration API."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from mec_apps.cli.new_secrets import hand_over, secret_output_option
from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.rest_client import PlatformAddress, call, rest_options
from mec_apps.cli.tables import print_table
from mec_platform.domain.applications import AppState

APP_INSTANCES = "admin/v1/app_instances"

_HEADINGS = ("INSTANCE", "NAME", "STATE", "CLIENT", "HOST", "SERVICES", "DNS", "TRAFFIC")

_id_argument = click.argument("app_instance_id", metavar="APP_INSTANCE_ID")
_grace_option = click.option(
    "--grace-s",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    help="Seconds that the instance may take for what it has to do before its end.",
)
_now_option = click.option("--now", is_flag=True, help="Do not ask the instance, and do not wait for it.")


@click.group()
def app() -> None:
    """Application instances: make them with their credentials and rules, end them gracefully, remove them.

    \b
    mec app create --name greeter --id greeter-1 --output greeter-1.json
    mec app list
    mec app terminate greeter-1 --grace-s 30
    mec app delete greeter-1
    """


@app.command(epilog="Example: mec app create --descriptor greeter.toml --output greeter-1.json")
@click.option("--name", help="What the application is called; needed where no descriptor says it.")
@click.option("--id", "app_instance_id", help="The instance's id (default: one of the platform's making).")
@click.option(
    "--descriptor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON or TOML file with the attributes of POST /admin/v1/app_instances: provider, DNS and traffic rules, place.",
)
@click.option("--client", "client_id", help="Existing client that the instance belongs to (default: one of its own).")
@secret_output_option
@rest_options
@json_option
def create(
    name: str | None,
    app_instance_id: str | None,
    descriptor: Path | None,
    client_id: str | None,
    output: Path | None,
    platform: PlatformAddress,
    as_json: bool,
) -> None:
    """Make an instance. Its secret is shown once."""
    message = {} if descriptor is None else read_descriptor(descriptor)
    given = {"appName": name, "appInstanceId": app_instance_id, "clientId": client_id}
    message |= {key: value for key, value in given.items() if value is not None}
    if "appName" not in message:
        raise CliError("an instance needs a name: say --name, or give a --descriptor with appName")
    made = run_async(call(platform, "POST", APP_INSTANCES, message))
    credentials = made.pop("credentials", None)
    shown = {} if credentials is None else hand_over(credentials, output)
    if as_json:
        print_json(made | shown)
        return
    click.echo(f"app_instance_id  {made['appInstanceId']}")
    for key, value in shown.items():
        click.echo(f"{key}  {value}")


def read_descriptor(path: Path) -> dict[str, Any]:
    """Raises CliError where the file cannot be read or holds no object."""
    try:
        text = path.read_text(encoding="utf-8")
        message = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of both kinds of files
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise CliError(f"{path} is no {kind} file: {error}") from error
    if not isinstance(message, dict):
        raise CliError(f"{path} must hold one object with the attributes of an instance")
    return message


@app.command("list", epilog="Example: mec app list --state READY --json")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([each.value for each in AppState], case_sensitive=False),
    help="Only instances in this state; repeatable.",
)
@rest_options
@json_option
def list_command(states: tuple[str, ...], platform: PlatformAddress, as_json: bool) -> None:
    """Instances, their states, and what they offer."""
    query = f"?{urlencode([('operational_state', each) for each in states])}" if states else ""
    found = run_async(call(platform, "GET", f"{APP_INSTANCES}{query}"))
    if as_json:
        print_json(found)
    elif found:
        print_table(_HEADINGS, map(_row, found))
    else:
        click.echo("no application instances")


def _row(app: dict[str, Any]) -> tuple[object, ...]:
    client = app.get("clientId", "-")
    return (
        app["appInstanceId"],
        app["appName"],
        app["operationalState"],
        "its own" if client == app["appInstanceId"] else client,
        app["locality"]["mecHost"],
        app["services"],
        len(app["dnsRules"]),
        len(app["trafficRules"]),
    )


@app.command(epilog="Example: mec app show greeter-1")
@_id_argument
@rest_options
def show(app_instance_id: str, platform: PlatformAddress) -> None:
    """Everything that the platform knows of an instance, as JSON."""
    print_json(run_async(call(platform, "GET", _path(app_instance_id))))


@app.command(epilog="Example: mec app terminate greeter-1 --grace-s 30")
@_id_argument
@_grace_option
@_now_option
@rest_options
@json_option
def terminate(app_instance_id: str, grace_s: int, now: bool, platform: PlatformAddress, as_json: bool) -> None:
    """End an instance for good. It is asked first; what it offers stays until it confirms or its time is over."""
    message: dict[str, Any] = {"terminationType": "FORCEFUL"}
    if not now:
        message = {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": grace_s}
    _change(platform, app_instance_id, "terminate", message, as_json)


@app.command(epilog="Example: mec app stop greeter-1 --now")
@_id_argument
@_grace_option
@_now_option
@rest_options
@json_option
def stop(app_instance_id: str, grace_s: int, now: bool, platform: PlatformAddress, as_json: bool) -> None:
    """Stop an instance; it keeps rules and subscriptions and may be started again."""
    message: dict[str, Any] = {"changeStateTo": "STOPPED"}
    if not now:
        message |= {"stopType": "GRACEFUL", "gracefulStopTimeout": grace_s}
    _change(platform, app_instance_id, "operate", message, as_json)


@app.command(epilog="Example: mec app start greeter-1")
@_id_argument
@rest_options
@json_option
def start(app_instance_id: str, platform: PlatformAddress, as_json: bool) -> None:
    """Let a stopped instance offer services again."""
    _change(platform, app_instance_id, "operate", {"changeStateTo": "STARTED"}, as_json)


def _change(platform: PlatformAddress, app_instance_id: str, what: str, message: Any, as_json: bool) -> None:
    instance = run_async(call(platform, "POST", f"{_path(app_instance_id)}/{what}", message))
    if as_json:
        print_json(instance)
        return
    pending = instance.get("pendingEnd")
    within = f" within {pending['maxGracefulTimeout']} s" if pending else ""
    click.echo(f"{app_instance_id} is {instance['operationalState']}{within}")


@app.command(epilog="Example: mec app delete greeter-1")
@_id_argument
@click.option("--force", is_flag=True, help="Even where it is not terminated.")
@rest_options
@json_option
def delete(app_instance_id: str, force: bool, platform: PlatformAddress, as_json: bool) -> None:
    """Remove a terminated instance with everything of it, the client included that was made with it."""
    run_async(call(platform, "DELETE", f"{_path(app_instance_id)}{'?force=true' if force else ''}"))
    if as_json:
        print_json({"deleted": app_instance_id})
    else:
        click.echo(f"application instance {app_instance_id} is gone")


def _path(app_instance_id: str) -> str:
    return f"{APP_INSTANCES}/{quote(app_instance_id, safe='')}"
