"""Copies of an event log's file: taken while a platform writes it, checked, and put back into its place.

A copy is whole or not there: it is made under another name, checked and synchronised to disk before it gets its own.
A backup is one file without companions; a log's file may have a write-ahead log beside it that belongs to it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mec_platform.registry.errors import BackupError, LogUnavailable
from mec_platform.registry.sqlite.appending import last_revision
from mec_platform.registry.sqlite.lock import exclusive_lock, shared_lock
from mec_platform.registry.sqlite.schema import BUSY_TIMEOUT_S, migrate, read_version, sync_folder

PAGES_PER_STEP = 1024
"""Progress is told after each 4 MiB."""

COMPANIONS = ("-wal", "-shm")
"""What SQLite keeps beside a file; a write-ahead log left there would be played into whatever takes the file's place."""

OnProgress = Callable[[int, int], None]
"""Told how many pages have been copied, and of how many."""


@dataclass(frozen=True, slots=True)
class StateFacts:
    """What a copy holds, in the current schema. `revisions` has the last revision of every stream."""

    path: Path
    schema_version: int
    size_bytes: int
    revisions: Mapping[str, int]


def save_backup(state: Path, target: Path, *, replace: bool, on_progress: OnProgress) -> StateFacts:
    """Copies a log's file as it is at this moment; platforms that have it open go on reading and writing.

    Raises:
        BackupError: there is a file at `target` and it is not to be replaced, `state` is no event log, or damaged.
        LogUnavailable: `state` is being restored.
    """
    if target.exists() and not replace:
        raise BackupError(f"{target} is there already; name another file or say --force")
    if not state.exists():
        raise BackupError(f"there is no {state} to copy; name the file that `mec serve --state` uses")
    if target.exists() and target.samefile(state):
        raise BackupError(f"{target} is the file to copy itself; name another one")
    with shared_lock(state), _copied(state, "rw", target, on_progress) as (copy, facts):
        os.replace(copy, target)
    sync_folder(target.parent)
    return facts


def restore_backup(backup: Path, state: Path, *, on_progress: OnProgress) -> tuple[StateFacts, Path | None]:
    """Puts a copy of `backup` in the place of a log's file; returns what it holds and where the file before it went.

    Raises:
        BackupError: `backup` is no event log, damaged, or of a newer version; or the file that an earlier restore kept
            is in the way. Nothing was changed.
        LogUnavailable: a platform has the file open.
    """
    if not backup.exists():
        raise BackupError(f"there is no backup {backup}")
    if state.exists() and state.samefile(backup):
        raise BackupError(f"{backup} is the file to restore itself; name the backup")
    kept = state.with_name(f"{state.name}.before-restore")
    if kept.exists():
        raise BackupError(f"{kept} is what an earlier restore replaced; move it away first")
    state.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(state), _copied(backup, "ro", state, on_progress) as (copy, facts):
        had_one = state.exists()
        if had_one:
            _keep(state, kept)
        os.replace(copy, state)
    sync_folder(state.parent)
    return facts, kept if had_one else None


def _keep(state: Path, kept: Path) -> None:
    """Gives the file a second name, so that at no moment its own one names nothing; its companions go along."""
    # A damaged file is kept as it is, together with its companions.
    with closing(_connect(state, "rw")) as connection, suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.link(state, kept)
    for suffix in COMPANIONS:
        companion = state.with_name(state.name + suffix)
        if companion.exists():
            companion.rename(kept.with_name(kept.name + suffix))


@contextmanager
def _copied(source: Path, mode: str, target: Path, on_progress: OnProgress) -> Iterator[tuple[Path, StateFacts]]:
    """A checked copy beside `target`, which whoever wants it renames."""
    copy = target.with_name(f".{target.name}.{os.getpid()}")
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        try:
            with closing(_connect(source, mode)) as original, closing(_connect(copy, "rw")) as connection:
                _check_version(original, source)
                original.backup(
                    connection, pages=PAGES_PER_STEP, progress=lambda _, left, pages: on_progress(pages - left, pages)
                )
                # One file without companions: it can be read from a folder that cannot be written.
                connection.execute("PRAGMA journal_mode = DELETE")
                migrate(connection, str(source))
                facts = _check(connection, source, target)
        except sqlite3.Error as error:
            raise BackupError(f"cannot copy {source} to {target}: {error}") from error
        descriptor = os.open(copy, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield copy, facts
    finally:
        copy.unlink(missing_ok=True)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    name = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(name, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def _check_version(original: sqlite3.Connection, source: Path) -> None:
    """Begins the read transaction within which everything is copied: what is written meanwhile is not seen."""
    original.execute("BEGIN")
    try:
        version = read_version(original)
    except LogUnavailable as error:
        raise BackupError(f"{source}: {error}") from error
    if version == 0:
        raise BackupError(f"{source} is no event log of this platform")


def _check(connection: sqlite3.Connection, source: Path, target: Path) -> StateFacts:
    problems = [problem for (problem,) in connection.execute("PRAGMA integrity_check(3)") if problem != "ok"]
    if problems:
        raise BackupError(f"{source} is damaged: {'; '.join(problems)}; use another backup")
    version, size_bytes = (
        connection.execute(question).fetchone()[0]
        for question in (
            "PRAGMA user_version",
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        )
    )
    rows = connection.execute("SELECT stream FROM entries UNION SELECT stream FROM snapshots ORDER BY stream")
    streams = [stream for (stream,) in rows]
    return StateFacts(target, version, size_bytes, {stream: last_revision(connection, stream) for stream in streams})
