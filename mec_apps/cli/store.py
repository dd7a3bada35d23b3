"""`mec store`: a platform's state from a file into etcd and back, whole and verified; and backups of what is in etcd."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from mec_apps.cli.option_groups import GroupedCommand
from mec_apps.cli.requests import CliError, json_option, print_json, run_async
from mec_apps.cli.state_address import FORMS, EtcdAccess, etcd_options
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.etcd.transfer import read_prefix, write_prefix
from mec_platform.registry.sqlite.backup import OnProgress, StateFacts, save_backup
from mec_platform.registry.sqlite.transfer import read_file, write_file
from mec_platform.registry.transfer import LogContent, check_copy

Place = Path | EtcdSettings


@click.group()
def store() -> None:
    """What keeps a platform's state."""


@store.command(
    cls=GroupedCommand, epilog="Example: mec store migrate ~/mec.sqlite etcd://10.0.0.1:2379,10.0.0.2:2379/mec"
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@etcd_options
@json_option
def migrate(source: str, target: str, etcd: EtcdAccess, as_json: bool) -> None:
    """Copy all of a state (FROM) into an empty place (TO); the platform must not run.

    Each is a file, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX. Revisions, snapshots and the audit history stay what they
    are; what was written is read back and compared. FROM is left as it is.
    """
    before, after = etcd.place(source), etcd.place(target)
    if before == after:
        raise CliError(f"FROM and TO are the same; each is {FORMS}")
    content = _read(before, must_be_idle=True)
    _write(after, content)
    check_copy(content, _read(after, must_be_idle=True), target)
    if as_json:
        print_json({"from": source, "to": target, "streams": [_facts(each) for each in content]})
        return
    for each in content:
        click.echo(f"{each.stream}: {len(each.entries)} entries, up to revision {each.revision}")
    click.echo(f"{source} is copied to {target} and verified; start the platform with --state {target}")


def save_etcd_backup(place: EtcdSettings, target: Path, *, replace: bool, on_progress: OnProgress) -> StateFacts:
    """A file with what is in etcd, as `save_backup` makes it. Raises BackupError, LogUnavailable."""
    content = _read(place, must_be_idle=False)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as folder:
        copy = Path(folder) / "copy.sqlite"
        write_file(copy, content)
        check_copy(content, read_file(copy), str(target))
        return save_backup(copy, target, replace=replace, on_progress=on_progress)


def _read(place: Place, *, must_be_idle: bool) -> LogContent:
    if isinstance(place, EtcdSettings):
        return run_async(read_prefix(place, must_be_idle=must_be_idle))
    return read_file(place)


def _write(place: Place, content: LogContent) -> None:
    if isinstance(place, EtcdSettings):
        run_async(write_prefix(place, content))
    else:
        write_file(place, content)


def _facts(content: Any) -> dict[str, Any]:
    return {
        "stream": content.stream,
        "revision": content.revision,
        "entries": len(content.entries),
        "compacted": len(content.audit),
    }
