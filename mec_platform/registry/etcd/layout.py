"""How the event log lies in etcd: its keys, and what is in their values. Pure; `event_log` reads and writes them.

Under the prefix of one MEC host:

    format                                    the version of this layout
    head/STREAM                               revision of the stream's last entry; every append compares it
    batch/STREAM/LAST                         entries that were appended together, under the revision of the last
    audit/STREAM/LAST                         what remains of a batch that was compacted: everything but payloads
    snapshot/STREAM                           which snapshot counts
    part/STREAM/LAST/ID/N                     rows of an append that is too large for one value
    snapshot-part/STREAM/REVISION/ID/N        a snapshot's payload
    leader, heard                             what replicas agree on and tell each other; no part of the log

Revisions are padded, so that etcd's order of keys is that of the log. STREAM is percent-encoded. Parts are written
first, and nobody sees them before the transaction that names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec

from mec_platform.registry.appends import Row
from mec_platform.registry.event_log import AuditRecord, LogEntry, Record
from mec_platform.rpc.etcd import etcd_pb2 as pb

FORMAT = b"1"

BEING_IMPORTED = b"being imported"
"""The format while a log is written by `transfer`: nobody opens it."""

LARGEST_VALUE_BYTES = 1024 * 1024
"""etcd takes requests of 1.5 MiB by default; a value leaves room for the rest of its transaction."""

_RecordTuple = tuple[str, bytes, str, str, int]
_AuditTuple = tuple[str, str, str, int]


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Value of a batch or of its audit: whose append it was, the first revision, and rows; in `parts` where not here."""

    append_id: bytes
    first: int
    parts: int
    rows: bytes


class SnapshotPointer(msgspec.Struct, frozen=True, array_like=True):
    """Value that makes a snapshot the one that counts."""

    revision: int
    snapshot_id: bytes
    parts: int


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Rows as they lie in a batch or in its parts."""
    return msgspec.msgpack.encode([row[2:] for row in rows])


def decode_entries(stream: str, first: int, rows: bytes) -> list[LogEntry]:
    """The entries of a batch."""
    records = msgspec.msgpack.decode(rows, type=list[_RecordTuple])
    return [LogEntry(revision, stream, Record(*each)) for revision, each in enumerate(records, start=first)]


def audit_of(batch: Batch, entries: Sequence[LogEntry]) -> Batch:
    """What remains of a batch when its entries are compacted."""
    return Batch(batch.append_id, batch.first, 0, encode_audit([audit_record(each) for each in entries]))


def encode_audit(records: Sequence[AuditRecord]) -> bytes:
    """Audit records of consecutive revisions as the rows of a batch."""
    return msgspec.msgpack.encode([(each.kind, each.subject, each.actor, each.at_unix_ns) for each in records])


def decode_audit(stream: str, audit: Batch) -> list[AuditRecord]:
    """The audit records of a batch that was compacted."""
    records = msgspec.msgpack.decode(audit.rows, type=list[_AuditTuple])
    return [AuditRecord(revision, stream, *each) for revision, each in enumerate(records, start=audit.first)]


def audit_record(entry: LogEntry) -> AuditRecord:
    """What the history says of an entry that is not compacted yet."""
    record = entry.record
    return AuditRecord(entry.revision, entry.stream, record.kind, record.subject, record.actor, record.at_unix_ns)


def decode_batch(value: bytes) -> Batch:
    """Raises msgspec.DecodeError for what this version has not written."""
    return msgspec.msgpack.decode(value, type=Batch)


def decode_pointer(value: bytes) -> SnapshotPointer:
    """Raises msgspec.DecodeError for what this version has not written."""
    return msgspec.msgpack.decode(value, type=SnapshotPointer)


encode = msgspec.msgpack.encode
"""A batch or a pointer as bytes."""


def cut(payload: bytes) -> list[bytes]:
    """Pieces of a payload, each small enough for one value; at least one."""
    return [payload[at : at + LARGEST_VALUE_BYTES] for at in range(0, max(len(payload), 1), LARGEST_VALUE_BYTES)]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix. Ranges are half-open pairs."""

    prefix: str

    def all(self) -> tuple[bytes, bytes]:
        """Everything of this log."""
        return self._under("")

    def format(self) -> bytes:
        """See the module."""
        return self._key("format")

    def leader(self) -> bytes:
        """Held by the replica that leads; see `leadership`."""
        return self._key("leader")

    def heard(self) -> bytes:
        """Whose heartbeats a replica got lately; see `heartbeats`."""
        return self._key("heard")

    def head(self, stream: str) -> bytes:
        """See the module."""
        return self._key(f"head/{quote(stream, safe='')}")

    def heads(self) -> tuple[bytes, bytes]:
        """Those of all streams."""
        return self._under("head/")

    def stream_of(self, head: bytes) -> str:
        """The stream that a head belongs to."""
        return unquote(head.removeprefix(self._key("head/")).decode())

    def batch(self, stream: str, last: int) -> bytes:
        """See the module."""
        return self._revision_key("batch", stream, last)

    def audit(self, stream: str, last: int) -> bytes:
        """See the module."""
        return self._revision_key("audit", stream, last)

    def snapshot(self, stream: str) -> bytes:
        """See the module."""
        return self._key(f"snapshot/{quote(stream, safe='')}")

    def behind(self, kind: str, stream: str, revision: int) -> tuple[bytes, bytes]:
        """Batches, or audits, that end behind a revision."""
        return self._revision_key(kind, stream, revision + 1), self._under(f"{kind}/{quote(stream, safe='')}/")[1]

    def up_to(self, kind: str, stream: str, revision: int) -> tuple[bytes, bytes]:
        """Batches, audits or parts that end at that revision or before."""
        return self._revision_key(kind, stream, 0), self._revision_key(kind, stream, revision + 1)

    def part(self, kind: str, stream: str, revision: int, part_id: bytes, number: int) -> bytes:
        """Part `number` (from 0) of a large append ("part") or of a snapshot ("snapshot-part")."""
        return self._revision_key(kind, stream, revision) + b"/%s/%06d" % (part_id.hex().encode(), number)

    def _key(self, name: str) -> bytes:
        return f"{self.prefix}/{name}".encode()

    def _revision_key(self, kind: str, stream: str, revision: int) -> bytes:
        return self._key(f"{kind}/{quote(stream, safe='')}/{revision:020d}")

    def _under(self, folder: str) -> tuple[bytes, bytes]:
        # "0" follows "/": everything that begins with the folder's name lies in between.
        start = self._key(folder)
        return start, start[:-1] + b"0"


# Operations of transactions


def put(key: bytes, value: bytes, lease: int = 0) -> pb.RequestOp:
    """Writes a key."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def get(key: bytes, end: bytes = b"", *, limit: int = 0) -> pb.RequestOp:
    """Reads a key, or a range of them."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, limit=limit))


def delete(key: bytes, end: bytes = b"") -> pb.RequestOp:
    """Deletes a key, or a range of them."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=end))


def has_value(key: bytes, value: bytes) -> pb.Compare:
    """That a key is as it was read."""
    return pb.Compare(key=key, target=pb.Compare.VALUE, result=pb.Compare.EQUAL, value=value)


def is_absent(key: bytes) -> pb.Compare:
    """That there is no such key."""
    return pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=0)


def has_revision(key: bytes, mod_revision: int) -> pb.Compare:
    """That nobody has written a key since it was read; 0 where it was absent."""
    return pb.Compare(key=key, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=mod_revision)
