"""A whole event log as a value, to be moved from one kind of storage to another; the adapters read and write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mec_platform.registry.errors import EventLogError
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot


@dataclass(frozen=True, slots=True)
class StreamContent:
    """All that a log has of a stream: its snapshot, the entries behind it, and what remains of those before (oldest first)."""

    stream: str
    snapshot: LogSnapshot | None
    audit: Sequence[AuditRecord]
    entries: Sequence[LogEntry]

    @property
    def revision(self) -> int:
        """That of the last entry, compacted or not."""
        if self.entries:
            return self.entries[-1].revision
        return 0 if self.snapshot is None else self.snapshot.revision


LogContent = Sequence[StreamContent]
"""By the streams' names."""


def check_copy(original: LogContent, copy: LogContent, target: str) -> None:
    """Raises EventLogError where a copy that was read back is not the original."""
    for before, after in zip(original, copy, strict=False):
        if before != after:
            raise EventLogError(f"{target} does not hold what was written of stream {before.stream!r}; do not use it")
    if len(original) != len(copy):
        raise EventLogError(f"{target} holds {len(copy)} streams instead of {len(original)}; do not use it")
