"""The event log in etcd: what several platforms append to, each of them seeing what the others append.

While one transaction is under way, the appends of the next one gather (group commit): a stream has one transaction at
a time, and each may carry hundreds of appends. `layout` says how it lies in etcd, `appending` how a group is written,
`reading` how it is read, `compaction` how entries become a snapshot.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Self

from mec_platform.background import BackgroundTasks
from mec_platform.registry.appends import Append, check_text
from mec_platform.registry.errors import EventLogError, LogUnavailable
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.appending import StreamAppender
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone, WatchLost
from mec_platform.registry.etcd.compaction import compact_stream
from mec_platform.registry.etcd.layout import FORMAT, LARGEST_VALUE_BYTES, Keys
from mec_platform.registry.etcd.reading import LogReader
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot, Record
from mec_platform.rpc.etcd import etcd_pb2 as pb

logger = logging.getLogger(__name__)

LARGEST_GROUP = 1024
"""Appends of one transaction."""

LARGEST_APPEND = 4096
"""Records of one append: what the history keeps of them has to fit into one value."""

RECORD_BYTES = 128
"""What a record takes beside its payload, about."""

PULSE_S = 1.0
"""How often etcd is asked for a sign of life, so that nobody takes what is in memory for new while it is not."""

WATCH_AGAIN_S = 0.1
"""Between a watch that was lost and the next one."""


@dataclass(frozen=True, slots=True)
class _Job:
    append: Append
    outcome: asyncio.Future[int]


@dataclass(slots=True)
class _Queue:
    """The appends of one stream that wait, while `is_writing` those before them are being written."""

    appender: StreamAppender
    waiting: deque[_Job] = field(default_factory=deque)
    is_writing: bool = False

    def take(self) -> list[_Job]:
        """The next group: as many as fit into one value, and one at least."""
        group: list[_Job] = []
        room = LARGEST_VALUE_BYTES
        while self.waiting and len(group) < LARGEST_GROUP:
            room -= sum(len(each.payload) + RECORD_BYTES for each in self.waiting[0].append.records)
            if group and room < 0:
                break
            group.append(self.waiting.popleft())
        return group


class EtcdEventLog:
    """Implements `EventLog`. Use `await EtcdEventLog.open(settings)`."""

    is_shared = True

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.client = EtcdClient(settings)
        self.keys = Keys(settings.prefix)
        self._reader = LogReader(self.client, self.keys)
        self._queues: dict[str, _Queue] = {}
        self._tasks = BackgroundTasks()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @classmethod
    async def open(cls, settings: EtcdSettings) -> Self:
        """Connects, and begins a log where there is none.

        Raises:
            LogUnavailable: etcd does not answer or refuses, a newer version wrote the log, or it is being imported.
            OSError: a file of the settings cannot be read.
        """
        log = cls(settings)
        try:
            await log._check_format()
        except BaseException:
            await log.close()
            raise
        log._tasks.start(f"pulse of {settings}", log._watch_pulse())
        return log

    @property
    def is_reachable(self) -> bool:
        """See EventLog.is_reachable: from the last call, or from a pulse that a quorum answers every second."""
        return self.client.is_reachable

    async def append(self, stream: str, records: Sequence[Record], expected_revision: int | None = None) -> int:
        """See EventLog.append. Raises ValueError where there are more than LARGEST_APPEND records."""
        self._check_open()
        check_text(records)
        if len(records) > LARGEST_APPEND:
            raise ValueError(f"{len(records)} records are too many for one append, {LARGEST_APPEND} may be")
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = _Queue(StreamAppender(self.client, self.keys, stream))
        job = _Job(Append(stream, records, expected_revision), asyncio.get_running_loop().create_future())
        queue.waiting.append(job)
        if not queue.is_writing:
            queue.is_writing = True
            self._idle.clear()
            self._tasks.start(f"appends to {stream}", self._write(queue))
        return await job.outcome

    async def read(self, stream: str, after_revision: int = 0) -> list[LogEntry]:
        """See EventLog.read."""
        self._check_open()
        entries, _ = await self._reader.entries(stream, after_revision)
        return entries

    async def tail(self, stream: str, after_revision: int = 0) -> AsyncGenerator[LogEntry, None]:
        """See EventLog.tail. Sees the appends of all platforms, over lost connections too."""
        while True:
            self._check_open()
            entries, at = await self._reader.entries(stream, after_revision)
            for entry in entries:
                after_revision = entry.revision
                yield entry
            try:
                async with aclosing(self._new_entries(stream, at)) as new_entries:
                    async for entry in new_entries:
                        if entry.revision > after_revision:
                            after_revision = entry.revision
                            yield entry
            except (WatchLost, HistoryGone) as error:
                logger.info("the tail of %r begins again behind revision %d: %s", stream, after_revision, error)
                await asyncio.sleep(WATCH_AGAIN_S)

    async def _new_entries(self, stream: str, at: int) -> AsyncGenerator[LogEntry, None]:
        """Entries that came after an etcd revision. Raises WatchLost, HistoryGone."""
        key, end = self.keys.behind("batch", stream, -1)
        create = pb.WatchCreateRequest(
            key=key, range_end=end, start_revision=at + 1, filters=[pb.WatchCreateRequest.NODELETE]
        )
        async with aclosing(self.client.watch(create)) as watch:
            async for events in watch:
                for event in events:
                    for entry in await self._reader.entries_of(stream, event.kv, event.kv.mod_revision):
                        yield entry

    async def read_snapshot(self, stream: str) -> LogSnapshot | None:
        """See EventLog.read_snapshot."""
        self._check_open()
        return await self._reader.snapshot(stream)

    async def compact(self, stream: str, snapshot: LogSnapshot) -> None:
        """See EventLog.compact."""
        self._check_open()
        await compact_stream(self.client, self.keys, stream, snapshot)

    async def history(self, stream: str, before_revision: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """See EventLog.history."""
        self._check_open()
        return await self._reader.history(stream, before_revision, limit)

    async def close(self) -> None:
        """See EventLog.close. Closing twice is harmless."""
        self._closed = True
        await self._idle.wait()
        await self._tasks.stop()
        await self.client.close()

    # Groups

    async def _write(self, queue: _Queue) -> None:
        try:
            while queue.waiting:
                group = [job for job in queue.take() if not job.outcome.cancelled()]
                if group:
                    await _write_group(queue.appender, group)
                # Callers that were answered just now: what they append next belongs to the next group.
                await asyncio.sleep(0)
        finally:
            queue.is_writing = False
            if not any(each.is_writing for each in self._queues.values()):
                self._idle.set()

    # Life

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"the event log {self.settings} is closed")

    async def _check_format(self) -> None:
        key = self.keys.format()
        answer = await self.client.txn(
            compare=[layout.is_absent(key)], success=[layout.put(key, FORMAT)], failure=[layout.get(key)]
        )
        if answer.succeeded:
            return
        found = answer.responses[0].response_range.kvs[0].value
        if found == layout.BEING_IMPORTED:
            raise LogUnavailable(
                f"{self.settings} is being written by `mec store migrate`, or that was broken off: if so, remove it with"
                f" etcdctl del --prefix {self.settings.prefix}/ and migrate again"
            )
        if found != FORMAT:
            raise LogUnavailable(
                f"{self.settings} has layout {found.decode(errors='replace')}, this platform reads {FORMAT.decode()};"
                " use the platform that wrote it, or a newer one"
            )

    async def _watch_pulse(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            was_reachable = self.is_reachable
            try:
                await self.client.range(pb.RangeRequest(key=self.keys.format(), count_only=True))
            except LogUnavailable as error:
                if was_reachable:
                    logger.error("the event log is out of reach, what is read from memory may be old: %s", error)
            else:
                if not was_reachable:
                    logger.warning("the event log %s is reachable again", self.settings)


async def _write_group(appender: StreamAppender, group: Sequence[_Job]) -> None:
    outcomes: Sequence[int | EventLogError]
    try:
        outcomes = await appender.append([job.append for job in group])
    except LogUnavailable as error:
        outcomes = [LogUnavailable(str(error)) for _ in group]
    except BaseException:
        _settle(group, [LogUnavailable("the event log has stopped") for _ in group])
        raise
    _settle(group, outcomes)


def _settle(group: Sequence[_Job], outcomes: Sequence[int | EventLogError]) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        if job.outcome.done():
            continue
        if isinstance(outcome, EventLogError):
            job.outcome.set_exception(outcome)
        else:
            job.outcome.set_result(outcome)
