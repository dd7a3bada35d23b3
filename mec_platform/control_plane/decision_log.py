"""The stream of decisions: what was decided, from what; bounded, and without repetitions of the same "keep"."""

from __future__ import annotations

from dataclasses import dataclass

from mec_platform.control_plane.decision_codec import (
    DecisionRecord,
    UnreadableRecord,
    decode_record,
    encode_record,
    is_new_in_substance,
)
from mec_platform.control_plane.orchestrator.decisions import Decision, decision_kind
from mec_platform.registry.clock import Clock
from mec_platform.registry.event_log import EventLog, LogSnapshot, Record

DECISIONS = "decisions"

KEPT = 500
"""Decisions that are kept: with a thousand nodes, about 20 MB."""

COMPACT_EVERY = 100
"""Older ones are removed so many at a time."""

NOTE_AGAIN_S = 5.0
"""A chain's decisions that change nothing are noted this often at most: a world that flickers is no news each second."""


@dataclass(frozen=True, slots=True)
class NotedDecision:
    """A record, where and when it was noted."""

    revision: int
    at_unix_ns: int
    record: DecisionRecord


class DecisionLog:
    """Of all deployments of a platform."""

    def __init__(self, log: EventLog, clock: Clock, actor: str) -> None:
        self._log = log
        self._clock = clock
        self._actor = actor
        self._last: dict[tuple[str, int], tuple[Decision, float]] = {}
        self._compacted = 0

    def is_news(self, record: DecisionRecord) -> bool:
        """Whether a decision that changes nothing should be noted."""
        last, at_s = self._last.get(_chain_of(record), (None, float("-inf")))
        if record.snapshot.now_s - at_s < NOTE_AGAIN_S:
            return False
        return is_new_in_substance(record.decision, last)

    async def note(self, record: DecisionRecord) -> None:
        """Keeps a decision with everything that it was made from. Raises LogUnavailable."""
        self._last[_chain_of(record)] = (record.decision, record.snapshot.now_s)
        kind = f"decision.{decision_kind(record.decision)}"
        entry = Record(kind, encode_record(record), record.deployment, self._actor, self._clock.unix_ns())
        revision = await self._log.append(DECISIONS, [entry])
        if revision - KEPT >= self._compacted + COMPACT_EVERY:
            self._compacted = revision - KEPT
            await self._log.compact(DECISIONS, LogSnapshot(self._compacted, b""))


async def read_decisions(log: EventLog) -> tuple[list[NotedDecision], int]:
    """Every decision that is kept, and how many entries could not be read: those of older versions. Raises LogUnavailable."""
    start = await log.read_snapshot(DECISIONS)
    found, unreadable = [], 0
    for entry in await log.read(DECISIONS, 0 if start is None else start.revision):
        try:
            found.append(NotedDecision(entry.revision, entry.record.at_unix_ns, decode_record(entry.payload)))
        except UnreadableRecord:
            unreadable += 1
    return found, unreadable


def _chain_of(record: DecisionRecord) -> tuple[str, int]:
    plan = record.snapshot.plan
    return record.deployment, 0 if plan is None else plan.chain
