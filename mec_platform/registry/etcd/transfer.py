"""A whole log out of a prefix in etcd, as it is at one moment, and into an empty one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from mec_platform.registry.appends import Row
from mec_platform.registry.errors import BackupError, LogUnavailable
from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone
from mec_platform.registry.etcd.layout import BEING_IMPORTED, FORMAT, LARGEST_VALUE_BYTES, Batch, Keys, SnapshotPointer
from mec_platform.registry.etcd.reading import LogReader
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.event_log import AuditRecord, LogEntry
from mec_platform.registry.transfer import LogContent, StreamContent
from mec_platform.rpc.etcd import etcd_pb2 as pb

Item = TypeVar("Item")

LARGEST_BATCH = 512
"""Records of one key."""

RECORD_BYTES = 128
"""What a record takes beside its payload, about."""


async def read_prefix(settings: EtcdSettings, *, must_be_idle: bool) -> LogContent:
    """Everything under a prefix, of one moment.

    Raises:
        BackupError: there is no log, or `must_be_idle` and a platform runs on it.
        LogUnavailable: etcd does not answer or refuses.
    """
    async with _client(settings) as client:
        keys = Keys(settings.prefix)
        format_, leader = [await client.range(pb.RangeRequest(key=each)) for each in (keys.format(), keys.leader())]
        if [kv.value for kv in format_.kvs] != [FORMAT]:
            raise BackupError(f"{settings} holds no log of this platform's version")
        if must_be_idle and leader.kvs:
            raise LogUnavailable(f"{leader.kvs[0].value.decode()} runs on {settings}; stop all its replicas first")
        while True:
            try:
                return await _read(client, keys)
            except HistoryGone:  # etcd has compacted itself meanwhile
                continue


async def write_prefix(settings: EtcdSettings, content: LogContent) -> None:
    """Everything into an empty prefix; until it is complete nobody can open it.

    Raises:
        BackupError: there is something under the prefix.
        LogUnavailable: etcd does not answer or refuses; what was written has to be removed before the next attempt.
    """
    async with _client(settings) as client:
        keys = Keys(settings.prefix)
        start, end = keys.all()
        if (await client.range(pb.RangeRequest(key=start, range_end=end, count_only=True))).count:
            raise BackupError(
                f"{settings} is not empty; name another prefix, or remove it: etcdctl del --prefix {start.decode()}"
            )
        claimed = await client.txn(
            compare=[layout.is_absent(keys.format())], success=[layout.put(keys.format(), BEING_IMPORTED)]
        )
        if not claimed.succeeded:
            raise BackupError(f"somebody else has just begun to use {settings}")
        for each in content:
            await _write_stream(client, keys, each)
        await client.txn([layout.put(keys.format(), FORMAT)])


async def _read(client: EtcdClient, keys: Keys) -> LogContent:
    reader = LogReader(client, keys)
    at = (await client.range(pb.RangeRequest(key=keys.format()))).header.revision
    streams = sorted([keys.stream_of(kv.key) async for kv in reader.pages(keys.heads(), at)])
    return [await _read_stream(reader, keys, stream, at) for stream in streams]


async def _read_stream(reader: LogReader, keys: Keys, stream: str, at: int) -> StreamContent:
    snapshot = await reader.snapshot_at(stream, at)
    compacted = 0 if snapshot is None else snapshot.revision
    audit: list[AuditRecord] = []
    entries: list[LogEntry] = []
    async for kv in reader.pages(keys.behind("audit", stream, -1), at):
        audit += layout.decode_audit(stream, layout.decode_batch(kv.value))
    async for kv in reader.pages(keys.behind("batch", stream, -1), at):
        entries += await reader.entries_of(stream, kv, at)
    # Of a batch in which a snapshot ends, and of one that a compaction has not come to, the first part is history.
    audit += [layout.audit_record(entry) for entry in entries if entry.revision <= compacted]
    return StreamContent(
        stream,
        snapshot,
        sorted(audit, key=lambda each: each.revision),
        [entry for entry in entries if entry.revision > compacted],
    )


async def _write_stream(client: EtcdClient, keys: Keys, content: StreamContent) -> None:
    stream, snapshot = content.stream, content.snapshot
    for audit in _batches(content.audit, size=lambda each: RECORD_BYTES):
        value = layout.encode(Batch(b"", audit[0].revision, 0, layout.encode_audit(audit)))
        await client.txn([layout.put(keys.audit(stream, audit[-1].revision), value)])
    if snapshot is not None:
        pointer = SnapshotPointer(snapshot.revision, secrets.token_bytes(16), len(layout.cut(snapshot.payload)))
        for number, part in enumerate(layout.cut(snapshot.payload)):
            key = keys.part("snapshot-part", stream, snapshot.revision, pointer.snapshot_id, number)
            await client.txn([layout.put(key, part)])
        await client.txn([layout.put(keys.snapshot(stream), layout.encode(pointer))])
    for entries in _batches(content.entries, size=lambda each: RECORD_BYTES + len(each.payload)):
        append_id, last = secrets.token_bytes(16), entries[-1].revision
        rows = layout.encode_rows([_row(entry) for entry in entries])
        parts = layout.cut(rows) if len(rows) > LARGEST_VALUE_BYTES else []
        for number, part in enumerate(parts):
            await client.txn([layout.put(keys.part("part", stream, last, append_id, number), part)])
        batch = Batch(append_id, entries[0].revision, len(parts), b"" if parts else rows)
        await client.txn([layout.put(keys.batch(stream, last), layout.encode(batch))])
    await client.txn([layout.put(keys.head(stream), b"%d" % content.revision)])


def _batches(items: Sequence[Item], size: Callable[[Item], int]) -> Iterator[Sequence[Item]]:
    """In order, each small enough for one value where it holds more than one item."""
    start, room = 0, LARGEST_VALUE_BYTES
    for at, item in enumerate(items):
        room -= size(item)
        if at > start and (room < 0 or at - start == LARGEST_BATCH):
            yield items[start:at]
            start, room = at, LARGEST_VALUE_BYTES - size(item)
    if start < len(items):
        yield items[start:]


def _row(entry: LogEntry) -> Row:
    each = entry.record
    return entry.stream, entry.revision, each.kind, each.payload, each.subject, each.actor, each.at_unix_ns


@asynccontextmanager
async def _client(settings: EtcdSettings) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(settings)
    try:
        yield client
    finally:
        await client.close()
