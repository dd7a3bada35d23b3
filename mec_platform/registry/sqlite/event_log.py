"""The event log in one SQLite file, or in memory with ":memory:"; the same code, so the same guarantees.

One thread owns the connection, so the event loop never waits for the disk. It takes everything that is queued as one
transaction (group commit): under load many appends share one sync to disk, alone one does not wait for company.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from mec_platform.registry.errors import LogUnavailable, RevisionConflict
from mec_platform.registry.event_log import LogEntry

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
LARGEST_GROUP = 256
"""Jobs per transaction: enough to make the sync to disk cheap per append, few enough to answer within milliseconds."""

_SCHEMA = f"""
CREATE TABLE entries (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX entries_by_stream ON entries (stream, revision);
PRAGMA user_version = {SCHEMA_VERSION};
"""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: Future[Any]


class SqliteEventLog:
    """Implements `EventLog`. Use `await SqliteEventLog.open(path)`."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._appended = asyncio.Event()
        self._closed = False
        self._opened: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name=f"event log {self._path}", daemon=True)

    @classmethod
    async def open(cls, path: Path | str) -> Self:
        """Opens the log, creating the file and its folder where they are missing.

        Raises:
            LogUnavailable: the file cannot be opened, is no event log, or was written by a newer version.
        """
        if path != ":memory:":
            await asyncio.to_thread(Path(path).parent.mkdir, parents=True, exist_ok=True)
        log = cls(path)
        log._thread.start()
        await asyncio.wrap_future(log._opened)
        return log

    async def append(self, stream: str, kind: str, payload: bytes, expected_revision: int | None = None) -> int:
        """See EventLog.append."""

        def run(connection: sqlite3.Connection) -> int:
            if expected_revision is not None:
                (last,) = connection.execute(
                    "SELECT coalesce(max(revision), 0) FROM entries WHERE stream = ?", (stream,)
                ).fetchone()
                if last != expected_revision:
                    raise RevisionConflict(stream, expected_revision, last)
            inserted = connection.execute(
                "INSERT INTO entries (stream, kind, payload) VALUES (?, ?, ?)", (stream, kind, payload)
            )
            return int(inserted.lastrowid or 0)

        return await self._submit(run, writes=True)

    async def read(self, stream: str, after_revision: int = 0) -> list[LogEntry]:
        """See EventLog.read."""

        def run(connection: sqlite3.Connection) -> list[LogEntry]:
            rows = connection.execute(
                "SELECT revision, stream, kind, payload FROM entries"
                " WHERE stream = ? AND revision > ? ORDER BY revision",
                (stream, after_revision),
            )
            return [LogEntry(*row) for row in rows]

        return await self._submit(run, writes=False)

    async def tail(self, stream: str, after_revision: int = 0) -> AsyncGenerator[LogEntry, None]:
        """See EventLog.tail. Sees the appends of this process as they come."""
        while True:
            appended = self._appended
            entries = await self.read(stream, after_revision)
            for entry in entries:
                after_revision = entry.revision
                yield entry
            if not entries:
                await appended.wait()

    async def close(self) -> None:
        """See EventLog.close. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.wrap_future(self._ended)
        self._wake_tails()

    async def _submit(self, run: Callable[[sqlite3.Connection], Result], *, writes: bool) -> Result:
        if self._closed:
            raise LogUnavailable(f"the event log {self._path} is closed")
        future: Future[Result] = Future()
        self._jobs.put(_Job(run, writes, future))
        return await asyncio.wrap_future(future)

    def _wake_tails(self) -> None:
        self._appended.set()
        self._appended = asyncio.Event()

    # Below: the log's own thread.

    def _work(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, LogUnavailable) as error:
            self._opened.set_exception(self._unavailable(error))
            return
        self._opened.set_result(None)
        open_for_more = True
        while open_for_more:
            group, open_for_more = self._next_group()
            self._run_group(connection, group)
        connection.close()
        self._ended.set_result(None)

    def _connect(self) -> sqlite3.Connection:
        # Autocommit mode: transactions are begun and ended by hand, one per group.
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A committed plan must survive a power cut: epochs never go backwards.
            connection.execute("PRAGMA synchronous = FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            elif version != SCHEMA_VERSION:
                raise LogUnavailable(f"its schema has version {version}, this platform reads version {SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Waits for a job and takes what else is queued; False once the queue has been closed behind them."""
        group: list[_Job] = []
        try:
            job = self._jobs.get()
            while job is not None:
                if job.future.set_running_or_notify_cancel():
                    group.append(job)
                if len(group) == LARGEST_GROUP:
                    return group, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _run_group(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        writes = any(job.writes for job in group)
        outcomes: list[tuple[_Job, Any, RevisionConflict | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            for job in group:
                try:
                    outcomes.append((job, job.run(connection), None))
                except RevisionConflict as conflict:
                    outcomes.append((job, None, conflict))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            logger.error("event log %s: %s", self._path, error)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in group:
                job.future.set_exception(self._unavailable(error))
            return
        for job, result, refusal in outcomes:
            if refusal is not None:
                job.future.set_exception(refusal)
            else:
                job.future.set_result(result)
        if writes:
            self._loop.call_soon_threadsafe(self._wake_tails)

    def _unavailable(self, error: Exception) -> LogUnavailable:
        return LogUnavailable(f"event log {self._path}: {error}; check that the disk is writable and has room")
