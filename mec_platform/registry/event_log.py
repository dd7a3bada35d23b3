"""The port to durable state: an ordered log of events in named streams.

`sqlite` implements it for one platform, `etcd` for several that share their state.

Whatever keeps state keeps it here: the registry in one stream, the control plane its committed plans in another.
Payloads are opaque bytes; what is in them is their writer's affair.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One event to append: what happened, to what (`subject`, the id of a resource), through whom, and when."""

    kind: str
    payload: bytes
    subject: str = ""
    actor: str = ""
    at_unix_ns: int = 0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event. `revision` is positive and grows by one from entry to entry of a stream."""

    revision: int
    stream: str
    record: Record

    @property
    def kind(self) -> str:
        """What happened."""
        return self.record.kind

    @property
    def payload(self) -> bytes:
        """The details, in their writer's encoding."""
        return self.record.payload


@dataclass(frozen=True, slots=True)
class LogSnapshot:
    """What all entries of a stream up to and including `revision` amount to, in their writer's encoding."""

    revision: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What remains of an event for ever: everything but its payload."""

    revision: int
    stream: str
    kind: str
    subject: str
    actor: str
    at_unix_ns: int


class EventLog(Protocol):
    """Appends are durable when they return. All methods may raise LogUnavailable."""

    @property
    def is_shared(self) -> bool:
        """Whether other platforms append to it: whoever keeps state in memory has to follow the tail."""

    @property
    def is_reachable(self) -> bool:
        """Whether the storage has answered lately; where not, what is in memory may be old."""

    async def append(self, stream: str, records: Sequence[Record], expected_revision: int | None = None) -> int:
        """Appends events, all or none of them, under consecutive revisions; returns the revision of the last.

        With `expected_revision` this is a compare-and-set on the stream: it must be the revision of the stream's last
        entry, 0 for an empty stream. A cancelled append may or may not have happened.

        Raises:
            RevisionConflict: the stream's last entry has another revision; nothing was appended.
        """

    async def read(self, stream: str, after_revision: int = 0) -> list[LogEntry]:
        """Every entry of the stream behind `after_revision`, in order.

        Raises:
            Compacted: some of them exist no more; begin with the stream's snapshot.
        """

    def tail(self, stream: str, after_revision: int = 0) -> AsyncGenerator[LogEntry, None]:
        """Entries behind `after_revision`, then each new one as it comes, for ever.

        Nothing is skipped and nothing comes twice; resume with the revision of the last entry that was handled.

        Raises:
            Compacted: as `read`.
        """

    async def read_snapshot(self, stream: str) -> LogSnapshot | None:
        """The stream's newest snapshot, where it has been compacted."""

    async def compact(self, stream: str, snapshot: LogSnapshot) -> None:
        """Puts a snapshot in place of the entries that it sums up; what `history` says of them stays.

        One that is older than the stream's newest snapshot is ignored.
        """

    async def history(self, stream: str, before_revision: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Who changed what in a stream, newest first, compacted events included."""

    async def close(self) -> None:
        """Finishes what was accepted and lets go of the storage; the log is unusable afterwards."""
