"""The event log's file: its tables, how one version of them becomes the next, and how it is opened.

Its counterpart is `event_log`, which owns the connection afterwards. Nothing here reads or writes entries.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.sqlite.lock import shared_lock

logger = logging.getLogger(__name__)

MEMORY = ":memory:"

MIGRATIONS: Mapping[int, str] = {
    1: """
CREATE TABLE entries (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX entries_by_stream ON entries (stream, revision);
""",
    # Revisions count within their stream, so that a gap is a loss; compaction leaves an audit trail.
    2: """
ALTER TABLE entries RENAME TO entries_1;
CREATE TABLE entries (
    stream TEXT NOT NULL,
    revision INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_unix_ns INTEGER NOT NULL,
    PRIMARY KEY (stream, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO entries
    SELECT stream, row_number() OVER (PARTITION BY stream ORDER BY revision), kind, payload, '', '', 0 FROM entries_1;
DROP TABLE entries_1;
CREATE TABLE snapshots (
    stream TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE audit (
    stream TEXT NOT NULL,
    revision INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_unix_ns INTEGER NOT NULL,
    PRIMARY KEY (stream, revision)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER entries_follow_each_other BEFORE INSERT ON entries
WHEN NEW.revision <> 1 + coalesce(
    (SELECT max(revision) FROM entries WHERE stream = NEW.stream),
    (SELECT revision FROM snapshots WHERE stream = NEW.stream),
    0
)
BEGIN
    SELECT RAISE(ABORT, 'the stream has moved on');
END;
""",
}
"""What turns the tables of the version before into those of this version; a new file goes through all of them."""

SCHEMA_VERSION = max(MIGRATIONS)

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for one in another process; the longest transaction is a compaction, far below a second."""

PREPARED_STATEMENTS = 160
"""Enough for an INSERT of every size that `appending` uses, and for the rest."""

LARGEST_IDLE_WAL_BYTES = 64 * 1024 * 1024
"""The file beside the log is cut back to this after a burst; it is written over in place, so most never get there."""


@contextmanager
def opened_file(path: str) -> Iterator[sqlite3.Connection]:
    """The file with the current schema, created or migrated, and locked against being replaced.

    The connection is for the calling thread only, and in autocommit mode: transactions are begun and ended by hand.

    Raises:
        LogUnavailable: a newer version wrote it, or it is being restored.
        sqlite3.Error, OSError: it cannot be opened, or is no event log.
    """
    with ExitStack() as stack:
        if path != MEMORY:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(shared_lock(Path(path)))
            make_private(Path(path))
        yield stack.enter_context(closing(connect(path)))


def connect(path: str) -> sqlite3.Connection:
    """A connection in autocommit mode to a file that is brought to the current schema; see `opened_file`."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=PREPARED_STATEMENTS
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # What was acknowledged must survive a power cut: epochs never go backwards.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LARGEST_IDLE_WAL_BYTES}")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def read_version(connection: sqlite3.Connection) -> int:
    """The schema version of a file, 0 for an empty one. Raises LogUnavailable where this platform cannot read it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LogUnavailable(
            f"its schema has version {version}, this platform reads versions up to {SCHEMA_VERSION}; "
            "use the platform that wrote it, or a newer one"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Brings an empty file, or one of an earlier version, to the current schema, wholly or not at all."""
    if read_version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have migrated the file in between.
        before = read_version(connection)
        for version in range(before + 1, SCHEMA_VERSION + 1):
            for statement in _statements(MIGRATIONS[version]):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if before not in (0, SCHEMA_VERSION):
        logger.warning("event log %s: migrated from schema version %d to %d", path, before, SCHEMA_VERSION)


def _statements(script: str) -> list[str]:
    """Its single statements; `executescript` would commit the transaction around them."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if pending.strip() and sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def make_private(path: Path) -> None:
    """Creates a missing file for its owner's eyes only; SQLite gives the files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            logger.warning("event log %s holds keys and others can read it (mode %o): chmod 600 it", path, mode)
        return
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in it survive a power cut, as what is in the files does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
