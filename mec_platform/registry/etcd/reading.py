"""What is read of the log in etcd: pages of one moment, batches with their parts, and what `EventLog` makes of them.

etcd keeps earlier states for a while, so that a long answer is read at the revision at which it began. Where etcd has
compacted that one meanwhile, reading begins anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from mec_platform.registry.errors import Compacted
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone
from mec_platform.registry.etcd.layout import Batch, Keys, SnapshotPointer
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot
from mec_platform.rpc.etcd import etcd_pb2 as pb

Result = TypeVar("Result")

PAGE_BYTES = 4 * 1024 * 1024
"""Pages are made so that they are about as large: batches hold one record or a thousand."""

FIRST_PAGE, LARGEST_PAGE = 64, 2048


class LogReader:
    """Reads one log. All methods may raise LogUnavailable."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def entries(self, stream: str, after_revision: int) -> tuple[list[LogEntry], int]:
        """Entries behind a revision, and the etcd revision that shows them. Raises Compacted."""
        return await self._of_one_moment(lambda: self._entries(stream, after_revision))

    async def _entries(self, stream: str, after_revision: int) -> tuple[list[LogEntry], int]:
        at, pointer = await self.pointer(stream)
        if pointer is not None and pointer.revision > after_revision:
            raise Compacted(stream, pointer.revision)
        found: list[LogEntry] = []
        async for kv in self.pages(self._keys.behind("batch", stream, after_revision), at):
            found += await self.entries_of(stream, kv, at)
        return [entry for entry in found if entry.revision > after_revision], at

    async def entries_of(self, stream: str, kv: pb.KeyValue, at: int) -> list[LogEntry]:
        """The entries of a batch, from its parts where it has some. Raises HistoryGone."""
        batch = layout.decode_batch(kv.value)
        rows = batch.rows if not batch.parts else await self._parts("part", stream, kv.key, batch, at)
        return layout.decode_entries(stream, batch.first, rows)

    async def pointer(self, stream: str, at: int = 0) -> tuple[int, SnapshotPointer | None]:
        """The etcd revision of now, and which snapshot counts, or counted at another revision. Raises HistoryGone."""
        answer = await self._client.range(pb.RangeRequest(key=self._keys.snapshot(stream), revision=at))
        return answer.header.revision, layout.decode_pointer(answer.kvs[0].value) if answer.kvs else None

    async def snapshot(self, stream: str) -> LogSnapshot | None:
        """The snapshot that counts."""

        async def read() -> LogSnapshot | None:
            at, _ = await self.pointer(stream)
            return await self.snapshot_at(stream, at)

        return await self._of_one_moment(read)

    async def snapshot_at(self, stream: str, at: int) -> LogSnapshot | None:
        """The snapshot that counted at an etcd revision. Raises HistoryGone."""
        _, pointer = await self.pointer(stream, at)
        if pointer is None:
            return None
        where = "snapshot-part", stream, pointer.revision, pointer.snapshot_id
        return LogSnapshot(pointer.revision, await self._joined(*where, parts=pointer.parts, at=at))

    async def history(self, stream: str, before_revision: int | None, limit: int) -> list[AuditRecord]:
        """See EventLog.history."""
        if before_revision is None:
            head = await self._client.range(pb.RangeRequest(key=self._keys.head(stream)))
            before_revision = int(head.kvs[0].value) + 1 if head.kvs else 1
        return await self._of_one_moment(lambda: self._history(stream, before_revision, limit))

    async def _history(self, stream: str, before: int, limit: int) -> list[AuditRecord]:
        # Revisions have no gaps, so the batches with `limit` of them are as many at most, and one that reaches beyond.
        ranges = [self._keys.behind(kind, stream, max(before - limit - 1, 0)) for kind in ("audit", "batch")]
        answer = await self._client.txn([layout.get(*each, limit=limit + 1) for each in ranges])
        audits, batches = (each.response_range.kvs for each in answer.responses)
        records = [each for kv in audits for each in layout.decode_audit(stream, layout.decode_batch(kv.value))]
        for kv in batches:
            records += map(layout.audit_record, await self.entries_of(stream, kv, answer.header.revision))
        wanted = [each for each in records if before - limit <= each.revision < before]
        return sorted(wanted, key=lambda each: -each.revision)

    async def pages(self, between: tuple[bytes, bytes], at: int) -> AsyncIterator[pb.KeyValue]:
        """All keys of a range as they were at an etcd revision. Raises HistoryGone."""
        start, end = between
        limit = FIRST_PAGE
        while True:
            page = await self._client.range(pb.RangeRequest(key=start, range_end=end, limit=limit, revision=at))
            for kv in page.kvs:
                yield kv
            if not page.more:
                return
            start = page.kvs[-1].key + b"\0"
            limit = min(max(limit * PAGE_BYTES // max(page.ByteSize(), 1), 1), 4 * limit, LARGEST_PAGE)

    async def _parts(self, kind: str, stream: str, key: bytes, batch: Batch, at: int) -> bytes:
        last = int(key.rpartition(b"/")[2])
        return await self._joined(kind, stream, last, batch.append_id, parts=batch.parts, at=at)

    async def _joined(self, kind: str, stream: str, revision: int, part_id: bytes, *, parts: int, at: int) -> bytes:
        found: Sequence[bytes] = [
            kv.value
            for number in range(parts)
            for kv in (
                await self._client.range(
                    pb.RangeRequest(key=self._keys.part(kind, stream, revision, part_id, number), revision=at)
                )
            ).kvs
        ]
        return b"".join(found)

    async def _of_one_moment(self, read: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await read()
            except HistoryGone:
                continue
