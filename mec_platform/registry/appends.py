"""What a group of appends amounts to: the revision of every entry, and which appends are refused. Pure.

The adapters of the event log write the rows; `EventLog.append` says what callers are promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mec_platform.registry.errors import RevisionConflict
from mec_platform.registry.event_log import Record

Row = tuple[str, int, str, bytes, str, str, int]
"""An entry, flat: stream, revision, kind, payload, subject, actor, at_unix_ns."""


@dataclass(frozen=True, slots=True)
class Append:
    """What one caller wants appended; see EventLog.append."""

    stream: str
    records: Sequence[Record]
    expected_revision: int | None


@dataclass(frozen=True, slots=True)
class AppendPlan:
    """The rows of a group, and for each of its appends the revision of its last entry or why it is refused."""

    rows: Sequence[Row]
    outcomes: Sequence[int | RevisionConflict]
    last: Mapping[str, int]

    @property
    def refuses(self) -> bool:
        """Whether an append is refused."""
        return any(isinstance(outcome, RevisionConflict) for outcome in self.outcomes)


def plan_appends(appends: Sequence[Append], last: Mapping[str, int]) -> AppendPlan:
    """Gives every entry its revision; `last` has the last revision of each stream that is concerned."""
    after = dict(last)
    rows: list[Row] = []
    outcomes: list[int | RevisionConflict] = []
    for append in appends:
        stream, base = append.stream, after[append.stream]
        if append.expected_revision not in (None, base):
            outcomes.append(RevisionConflict(stream, append.expected_revision or 0, base))
            continue
        for revision, each in enumerate(append.records, start=base + 1):
            rows.append((stream, revision, each.kind, each.payload, each.subject, each.actor, each.at_unix_ns))
        after[stream] = base + len(append.records)
        outcomes.append(after[stream])
    return AppendPlan(rows, outcomes, after)


def check_text(records: Sequence[Record]) -> None:
    """Half of a surrogate pair is no text: its writer's fault, not that of the group it would be in.

    Raises:
        UnicodeEncodeError: a subject or an actor has one.
    """
    for each in records:
        f"{each.subject}{each.actor}".encode()
