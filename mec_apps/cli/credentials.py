"""`mec credentials`: what can be done about lost credentials without any that work."""

from __future__ import annotations

from pathlib import Path

import click

from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.state_files import state_option
from mec_platform.credential_files import adopt_operator, default_path
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.registry.sqlite.lock import exclusive_lock


@click.group()
def credentials() -> None:
    """The operator's credentials, by the state file of a platform that does not run."""


@credentials.command(epilog="Example: mec credentials reset --state ~/mec.sqlite")
@state_option
@click.option(
    "--operator-credentials",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the new credentials are written (default: STATE.operator.json).",
)
@json_option
def reset(state: Path, path: Path | None, as_json: bool) -> None:
    """Make a new operator, where the credentials of the first one are lost.

    Stop the platform before. Other operators stay: `mec client list` shows them, `mec client delete` ends them.
    """
    path = path or default_path(state)
    if not state.exists():
        raise CliError(f"there is no state file {state}; name the one that `mec serve --state` uses")
    if path.exists():
        raise CliError(f"{path} exists already; if its credentials are worth nothing any more, remove it first")
    # A platform that runs would not see the new operator before it changes something itself.
    with exclusive_lock(state):
        pass
    client_id = run_async(_reset(state, path))
    if as_json:
        print_json({"client_id": client_id, "file": str(path)})
    else:
        click.echo(f"operator {client_id} has its credentials in {path}")


async def _reset(state: Path, path: Path) -> str:
    log = await SqliteEventLog.open(state)
    try:
        registry = Registry(log)
        await registry.start()
        try:
            client_id = f"operator-{registry.state.revision + 1}"
            await adopt_operator(Credentials(registry), path, client_id)
        finally:
            await registry.stop()
    finally:
        await log.close()
    return client_id
