"""The port to durable state: an ordered log of events in named streams. `sqlite` implements it for one machine.

Whatever keeps state keeps it here: the registry in one stream, the control plane its committed plans in another.
Payloads are opaque bytes; what is in them is their writer's affair.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event. `revision` is positive and grows strictly over the whole log, so within each stream too."""

    revision: int
    stream: str
    kind: str
    payload: bytes


class EventLog(Protocol):
    """Appends are durable when they return. All methods may raise LogUnavailable."""

    async def append(self, stream: str, kind: str, payload: bytes, expected_revision: int | None = None) -> int:
        """Appends one event and returns its revision.

        With `expected_revision` this is a compare-and-set on the stream: it must be the revision of the stream's last
        entry, 0 for an empty stream. A cancelled append may or may not have happened.

        Raises:
            RevisionConflict: the stream's last entry has another revision; nothing was appended.
        """

    async def read(self, stream: str, after_revision: int = 0) -> list[LogEntry]:
        """Every entry of the stream behind `after_revision`, in order."""

    def tail(self, stream: str, after_revision: int = 0) -> AsyncIterator[LogEntry]:
        """Entries behind `after_revision`, then each new one as it comes, for ever.

        Nothing is skipped and nothing comes twice; resume with the revision of the last entry that was handled.
        """

    async def close(self) -> None:
        """Finishes what was accepted and lets go of the storage; the log is unusable afterwards."""
