"""`mec backup` and `mec restore`: copies of the file in which a platform keeps its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from mec_apps.cli.requests import json_option, print_json
from mec_apps.cli.state_address import EtcdAccess, etcd_options
from mec_apps.cli.store import save_etcd_backup
from mec_platform.registry.etcd.settings import SCHEME, EtcdSettings
from mec_platform.registry.sqlite.backup import OnProgress, StateFacts, restore_backup, save_backup

AFTER_RESTORE = (
    "Restart the nodes and gateways: they refuse plans whose epoch is not newer than the one that they have seen. "
    "Applications that came after the backup have to register again; keys and clients are those of the backup."
)


def _file_only(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    # click has made a path of it, in which slashes do not repeat.
    if str(path).startswith(SCHEME.removesuffix("/")):
        raise click.BadParameter("this is for files; see mec store migrate for what is in etcd")
    return path


state_option = click.option(
    "--state",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_file_only,
    help="The file that `mec serve --state` uses.",
)


@click.command(epilog="Example: mec backup --state ~/mec.sqlite mec-monday.sqlite")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--state", required=True, help="What `mec serve --state` uses: a file, or etcd://...")
@etcd_options
@click.option("--force", is_flag=True, help="Put the copy in the place of a FILE that is there.")
@json_option
def backup(file: Path, state: str, etcd: EtcdAccess, force: bool, as_json: bool) -> None:
    """Copy a platform's state to FILE, also while the platform runs.

    The copy is checked before it gets its name. It holds keys: only its owner may read it. A state in etcd is copied
    as it is at one moment; mec store migrate brings FILE back into an empty prefix.
    """
    place = etcd.place(state)
    with _progress("copying") as on_progress:
        if isinstance(place, EtcdSettings):
            facts = save_etcd_backup(place, file, replace=force, on_progress=on_progress)
        else:
            facts = save_backup(place, file, replace=force, on_progress=on_progress)
    if as_json:
        print_json(_facts(facts))
        return
    click.echo(f"{state} copied to {_describe(facts)}")


@click.command(epilog="Example: mec restore mec-monday.sqlite --state ~/mec.sqlite")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@state_option
@json_option
def restore(file: Path, state: Path, as_json: bool) -> None:
    """Put a backup in the place of a platform's state; the platform must not run.

    What was there is kept as STATE.before-restore. Restoring puts everything back to the moment of the backup, the
    epochs of plans too: restart nodes and gateways afterwards, for they refuse plans whose epoch is not newer than the
    one that they have seen. Applications that came after the backup have to register again.
    """
    with _progress("restoring") as on_progress:
        facts, kept = restore_backup(file, state, on_progress=on_progress)
    if as_json:
        print_json(_facts(facts) | {"kept": None if kept is None else str(kept), "note": AFTER_RESTORE})
        return
    click.echo(f"{file} restored to {_describe(facts)}")
    if kept is not None:
        click.echo(f"What was there is kept as {kept}.")
    click.echo(AFTER_RESTORE)


def _facts(facts: StateFacts) -> dict[str, Any]:
    return {
        "path": str(facts.path),
        "schema_version": facts.schema_version,
        "size_bytes": facts.size_bytes,
        "revisions": dict(facts.revisions),
    }


def _describe(facts: StateFacts) -> str:
    streams = ", ".join(f"{stream} to revision {revision}" for stream, revision in facts.revisions.items())
    return f"{facts.path}: {facts.size_bytes / 1e6:.1f} MB, {streams or 'no entries'}"


@contextmanager
def _progress(what: str) -> Iterator[OnProgress]:
    """A bar on a terminal's stderr, nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, pages: progress.update(task, completed=done, total=pages)
