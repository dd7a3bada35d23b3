"""How entries become a snapshot: the snapshot is written in parts, one transaction makes it count, the rest is tidying.

From that transaction on readers take the snapshot for the beginning, so what happens to the batches before it, and when,
nobody sees. A compaction that breaks off leaves work for the next one. Two at once do the same thing twice.
"""

from __future__ import annotations

import secrets

from mec_platform.registry.etcd import layout
from mec_platform.registry.etcd.client import EtcdClient, HistoryGone
from mec_platform.registry.etcd.layout import LARGEST_VALUE_BYTES, Keys, SnapshotPointer
from mec_platform.registry.etcd.reading import LogReader
from mec_platform.registry.event_log import LogSnapshot
from mec_platform.rpc.etcd import etcd_pb2 as pb

LARGEST_TRANSACTION = 126
"""etcd takes 128 operations by default; a batch takes two."""


async def compact_stream(client: EtcdClient, keys: Keys, stream: str, snapshot: LogSnapshot) -> None:
    """See EventLog.compact. Raises LogUnavailable."""
    if not await _publish(client, keys, stream, snapshot):
        return
    await client.txn([layout.delete(*keys.up_to("snapshot-part", stream, snapshot.revision - 1))])
    while True:
        try:
            await _move_to_audit(client, keys, stream, snapshot.revision)
        except HistoryGone:  # etcd has compacted itself meanwhile
            continue
        break
    await client.txn([layout.delete(*keys.up_to("part", stream, snapshot.revision))])


async def _publish(client: EtcdClient, keys: Keys, stream: str, snapshot: LogSnapshot) -> bool:
    """Makes it the snapshot that counts; False where there is one that is as new."""
    pointer = SnapshotPointer(snapshot.revision, secrets.token_bytes(16), len(layout.cut(snapshot.payload)))
    was_written = False
    while True:
        before = await client.range(pb.RangeRequest(key=keys.snapshot(stream)))
        if before.kvs:
            counted = layout.decode_pointer(before.kvs[0].value)
            if counted.snapshot_id == pointer.snapshot_id:
                return True  # by an attempt whose answer was lost
            if counted.revision >= snapshot.revision:
                return False
        if not was_written:
            for number, part in enumerate(layout.cut(snapshot.payload)):
                key = keys.part("snapshot-part", stream, snapshot.revision, pointer.snapshot_id, number)
                await client.txn([layout.put(key, part)])
            was_written = True
        mod_revision = before.kvs[0].mod_revision if before.kvs else 0
        answer = await client.txn(
            compare=[layout.has_revision(keys.snapshot(stream), mod_revision)],
            success=[layout.put(keys.snapshot(stream), layout.encode(pointer))],
        )
        if answer.succeeded:
            return True


async def _move_to_audit(client: EtcdClient, keys: Keys, stream: str, revision: int) -> None:
    """Turns every batch that ends at `revision` or before into its audit, some at a time. Raises HistoryGone."""
    reader = LogReader(client, keys)
    at, _ = await reader.pointer(stream)
    operations: list[pb.RequestOp] = []
    size = 0
    async for kv in reader.pages(keys.up_to("batch", stream, revision), at):
        last = int(kv.key.rpartition(b"/")[2])
        entries = await reader.entries_of(stream, kv, at)
        audit = layout.encode(layout.audit_of(layout.decode_batch(kv.value), entries))
        if operations and (len(operations) + 2 > LARGEST_TRANSACTION or size + len(audit) > LARGEST_VALUE_BYTES):
            await client.txn(operations)
            operations, size = [], 0
        operations += [layout.delete(kv.key), layout.put(keys.audit(stream, last), audit)]
        size += len(audit)
    if operations:
        await client.txn(operations)
