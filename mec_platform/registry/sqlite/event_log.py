"""The event log in one SQLite file, or in memory with ":memory:"; the same code, so the same guarantees.

One thread owns the connection, so the event loop never waits for the disk. While it writes one group, the next one
gathers on the event loop (group commit): under load many appends share one sync to disk, alone one does not wait for
company. `appending` says how a group is written, `schema` how the file is laid out.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from mec_platform.registry.appends import Append, check_text
from mec_platform.registry.errors import Compacted, EventLogError, LogUnavailable
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot, Record
from mec_platform.registry.sqlite.appending import Appender
from mec_platform.registry.sqlite.schema import opened_file

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

GIVE_WAY_EVERY_S, GIVE_WAY_S = 0.001, 0.000_05
"""While a group is written, the event loop stands aside this often and for this long.

A busy loop lets go of Python's lock between callbacks, but takes it again long before the log's thread has woken up,
and each time starts that thread's five milliseconds of patience anew (`sys.setswitchinterval`). With callbacks of
150 us and no pause between them, 64 appenders got 32 appends/s through; standing aside for the time that it takes a
thread to wake up, once a millisecond, 4,900.
"""


@dataclass(frozen=True, slots=True)
class _Question:
    """Anything but an append, run in a transaction of its own."""

    run: Callable[[sqlite3.Connection], Any]
    writes: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    work: Append | _Question
    future: asyncio.Future[Any]


class SqliteEventLog:
    """Implements `EventLog`. Use `await SqliteEventLog.open(path)`."""

    is_shared = False
    is_reachable = True

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Job] = []
        self._written: list[_Job] = []
        self._groups: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        self._idle.set()
        self._appended = asyncio.Event()
        self._closed = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name=f"event log {self._path}", daemon=True)

    @classmethod
    async def open(cls, path: Path | str) -> Self:
        """Opens the log, creating the file (for its owner alone) and its folder where they are missing.

        Raises:
            LogUnavailable: the file cannot be opened, is no event log, or was written by a newer version.
        """
        log = cls(path)
        log._thread.start()
        await log._opened
        return log

    async def append(self, stream: str, records: Sequence[Record], expected_revision: int | None = None) -> int:
        """See EventLog.append."""
        check_text(records)
        return cast(int, await self._submit(Append(stream, records, expected_revision)))

    async def read(self, stream: str, after_revision: int = 0) -> list[LogEntry]:
        """See EventLog.read."""

        def ask(connection: sqlite3.Connection) -> list[LogEntry]:
            snapshot = _snapshot(connection, stream)
            if snapshot is not None and snapshot.revision > after_revision:
                raise Compacted(stream, snapshot.revision)
            rows = connection.execute(
                "SELECT revision, kind, payload, subject, actor, at_unix_ns FROM entries"
                " WHERE stream = ? AND revision > ? ORDER BY revision",
                (stream, after_revision),
            )
            return [LogEntry(revision, stream, Record(*record)) for revision, *record in rows]

        return await self._ask(ask)

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

    async def read_snapshot(self, stream: str) -> LogSnapshot | None:
        """See EventLog.read_snapshot."""
        return await self._ask(lambda connection: _snapshot(connection, stream))

    async def compact(self, stream: str, snapshot: LogSnapshot) -> None:
        """See EventLog.compact."""

        def ask(connection: sqlite3.Connection) -> None:
            before = _snapshot(connection, stream)
            if before is not None and before.revision >= snapshot.revision:
                return
            summed_up = (stream, snapshot.revision)
            connection.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (*summed_up, snapshot.payload))
            connection.execute(
                "INSERT INTO audit SELECT stream, revision, kind, subject, actor, at_unix_ns FROM entries"
                " WHERE stream = ? AND revision <= ?",
                summed_up,
            )
            connection.execute("DELETE FROM entries WHERE stream = ? AND revision <= ?", summed_up)

        await self._submit(_Question(ask, writes=True))

    async def history(self, stream: str, before_revision: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """See EventLog.history."""

        def ask(connection: sqlite3.Connection) -> list[AuditRecord]:
            rows = connection.execute(
                "SELECT revision, stream, kind, subject, actor, at_unix_ns FROM entries"
                " WHERE stream = ?1 AND (?2 IS NULL OR revision < ?2)"
                " UNION ALL SELECT revision, stream, kind, subject, actor, at_unix_ns FROM audit"
                " WHERE stream = ?1 AND (?2 IS NULL OR revision < ?2)"
                " ORDER BY revision DESC LIMIT ?3",
                (stream, before_revision, limit),
            )
            return [AuditRecord(*row) for row in rows]

        return await self._ask(ask)

    async def close(self) -> None:
        """See EventLog.close. Closing twice is harmless."""
        self._closed = True
        await self._idle.wait()
        self._groups.put(None)
        await self._ended.wait()

    async def _ask(self, ask: Callable[[sqlite3.Connection], Result]) -> Result:
        return cast(Result, await self._submit(_Question(ask)))

    def _submit(self, work: Append | _Question) -> asyncio.Future[Any]:
        if self._closed:
            raise LogUnavailable(f"the event log {self._path} is closed")
        job = _Job(work, self._loop.create_future())
        self._waiting.append(job)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._hand_over)
        return job.future

    def _hand_over(self) -> None:
        self._written = [job for job in self._waiting if not job.future.cancelled()]
        self._waiting = []
        if self._written:
            self._groups.put(self._written)
            self._giving_way = self._loop.call_later(GIVE_WAY_EVERY_S, self._give_way)
        else:
            self._idle.set()

    def _give_way(self) -> None:
        time.sleep(GIVE_WAY_S)
        self._giving_way = self._loop.call_later(GIVE_WAY_EVERY_S, self._give_way)

    def _deliver(self, outcomes: Sequence[Any]) -> None:
        self._giving_way.cancel()
        for job, outcome in zip(self._written, outcomes, strict=True):
            if job.future.cancelled():
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        if any(isinstance(job.work, Append) for job in self._written):
            self._wake_tails()
        # Behind the callers that were answered just now: what they append next belongs to the next group.
        self._loop.call_soon(self._hand_over)

    def _end(self) -> None:
        self._closed = True
        self._ended.set()
        self._wake_tails()

    def _wake_tails(self) -> None:
        self._appended.set()
        self._appended = asyncio.Event()

    # Below: the log's own thread.

    def _work(self) -> None:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(opened_file(self._path))
            except (sqlite3.Error, OSError, LogUnavailable) as error:
                self._loop.call_soon_threadsafe(self._opened.set_exception, self._unavailable(error))
                return
            self._loop.call_soon_threadsafe(self._opened.set_result, None)
            self._write_groups(connection)
        self._loop.call_soon_threadsafe(self._end)

    def _write_groups(self, connection: sqlite3.Connection) -> None:
        appender = Appender(connection)
        while (group := self._groups.get()) is not None:
            appends = [job.work for job in group if isinstance(job.work, Append)]
            appended = iter(self._run_appends(appender, appends))
            outcomes = [
                next(appended) if isinstance(job.work, Append) else self._run_question(connection, job.work)
                for job in group
            ]
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _run_appends(self, appender: Appender, appends: Sequence[Append]) -> Sequence[int | Exception]:
        if not appends:
            return []
        try:
            return appender.append(appends)
        except sqlite3.Error as error:
            unavailable = self._unavailable(error)
            return [LogUnavailable(str(unavailable)) for _ in appends]
        except Exception as error:
            # What SQLite cannot take, such as an integer beyond 64 bits; without this thread everybody would wait for ever.
            logger.debug("an append failed", exc_info=error)
            return [error] * len(appends)

    def _run_question(self, connection: sqlite3.Connection, question: _Question) -> Any:
        try:
            connection.execute("BEGIN IMMEDIATE" if question.writes else "BEGIN")
            try:
                outcome = question.run(connection)
                connection.execute("COMMIT")
            finally:
                # Where it was refused; a full disk may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except EventLogError as refusal:
            return refusal
        except sqlite3.Error as error:
            return self._unavailable(error)
        except Exception as error:
            # As in `_run_appends`: it is for who asked, and must not end the thread.
            logger.debug("a question failed", exc_info=error)
            return error
        return outcome

    def _unavailable(self, error: Exception) -> LogUnavailable:
        logger.error("event log %s: %s", self._path, error)
        if isinstance(error, LogUnavailable):  # It says itself what to do.
            return LogUnavailable(f"event log {self._path}: {error}")
        return LogUnavailable(f"event log {self._path}: {error}; check that the disk is writable and has room")


def _snapshot(connection: sqlite3.Connection, stream: str) -> LogSnapshot | None:
    row = connection.execute("SELECT revision, payload FROM snapshots WHERE stream = ?", (stream,)).fetchone()
    return None if row is None else LogSnapshot(*row)
