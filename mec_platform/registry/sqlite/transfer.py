"""A whole log out of a file, and into a new one. Nobody else has the file open meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mec_platform.registry.errors import BackupError, LogUnavailable
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot, Record
from mec_platform.registry.sqlite.lock import exclusive_lock
from mec_platform.registry.sqlite.schema import connect, make_private, read_version
from mec_platform.registry.transfer import LogContent, StreamContent


def read_file(path: Path) -> LogContent:
    """Everything in a file. A file of an earlier version is migrated.

    Raises:
        BackupError: there is no file, or it is no event log.
        LogUnavailable: a platform has it open, or a newer version wrote it.
    """
    if not path.exists():
        raise BackupError(f"there is no {path}; name the file that `mec serve --state` uses")
    with _alone(path) as connection:
        rows = connection.execute(
            "SELECT stream FROM entries UNION SELECT stream FROM snapshots ORDER BY stream"
        ).fetchall()
        return [_read_stream(connection, stream) for (stream,) in rows]


def write_file(path: Path, content: LogContent) -> None:
    """Everything into a file that is not there yet, or empty; all or nothing.

    Raises:
        BackupError: the file holds a log.
        LogUnavailable: a platform has it open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path) as connection:
        if connection.execute("SELECT 1 FROM entries UNION ALL SELECT 1 FROM snapshots LIMIT 1").fetchone():
            raise BackupError(f"{path} holds a log already; name a file that is not there")
        connection.execute("BEGIN IMMEDIATE")
        for each in content:
            if each.snapshot is not None:
                connection.execute(
                    "INSERT INTO snapshots VALUES (?, ?, ?)",
                    (each.stream, each.snapshot.revision, each.snapshot.payload),
                )
            connection.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", map(_audit_row, each.audit))
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", map(_entry_row, each.entries))
        connection.execute("COMMIT")


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    with exclusive_lock(path):
        if path.exists():
            _check_is_log(path)
        make_private(path)
        try:
            with closing(connect(str(path))) as connection:
                yield connection
        except sqlite3.Error as error:
            raise LogUnavailable(f"{path}: {error}; check that the disk is writable and has room") from error


def _check_is_log(path: Path) -> None:
    """Migrating would make a log of any database that has no version."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if tables and read_version(connection) == 0:
                raise BackupError(f"{path} is no event log of this platform")
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{path} is no event log of this platform: {error}") from error


def _read_stream(connection: sqlite3.Connection, stream: str) -> StreamContent:
    snapshot = connection.execute("SELECT revision, payload FROM snapshots WHERE stream = ?", (stream,)).fetchone()
    audit = connection.execute(
        "SELECT revision, stream, kind, subject, actor, at_unix_ns FROM audit WHERE stream = ? ORDER BY revision",
        (stream,),
    )
    entries = connection.execute(
        "SELECT revision, kind, payload, subject, actor, at_unix_ns FROM entries WHERE stream = ? ORDER BY revision",
        (stream,),
    )
    return StreamContent(
        stream,
        None if snapshot is None else LogSnapshot(*snapshot),
        [AuditRecord(*row) for row in audit],
        [LogEntry(revision, stream, Record(*record)) for revision, *record in entries],
    )


def _audit_row(record: AuditRecord) -> tuple[object, ...]:
    return record.stream, record.revision, record.kind, record.subject, record.actor, record.at_unix_ns


def _entry_row(entry: LogEntry) -> tuple[object, ...]:
    record = entry.record
    values = record.kind, record.payload, record.subject, record.actor, record.at_unix_ns
    return entry.stream, entry.revision, *values
