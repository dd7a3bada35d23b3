"""Heartbeats (ETSI GS MEC 011 clause 8.2.10): who must be heard of by when. In memory only, pure, no clock.

Heartbeats are far more frequent than changes, so they renew leases here and never reach the log; only a missed one
becomes an event. After a restart every lease starts anew.

A lease lapses once: its service is then to be suspended, and where its registration says so to be evicted a number of
intervals later. `liveness` does both, and `mass_expiry` says when it must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

SHORTEST_INTERVAL_S = 1
LONGEST_INTERVAL_S = 3600
DEFAULT_INTERVAL_S = 30
"""For an application without a preference: a dead service disappears within a minute, at two requests a minute."""

DEFAULT_INTERVALS_TO_EVICTION = 10
MOST_INTERVALS_TO_EVICTION = 1000

GRACE = 0.5
"""Part of an interval by which a heartbeat over Mp1 may be late: sent exactly on time, one slow request must not suspend."""

EVICTING_GRACE_S = 0.5
"""The same for services that may be evicted, whose applications renew well within the interval (as `RenewReply` tells
them): with a quarter of a second between two looks at the leases, silence is noticed within a second of the interval."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The last sign of life (Unix time) and the moment (monotonic) at which silence becomes a missed interval."""

    interval_s: int
    evict_after_intervals: int
    last_heartbeat_ns: int
    deadline_s: float


def choose_interval_s(offered_s: int) -> int:
    """The platform's interval for what an application offers; 0 means no preference."""
    if offered_s == 0:
        return DEFAULT_INTERVAL_S
    return min(max(offered_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


def choose_eviction(offered: int) -> int:
    """After how many missed intervals a suspended service goes, for what its application wishes; 0 means never."""
    return min(offered, MOST_INTERVALS_TO_EVICTION)


def patience_s(interval_s: int, evict_after_intervals: int) -> float:
    """For how long after a heartbeat silence is no missed interval."""
    return interval_s + (EVICTING_GRACE_S if evict_after_intervals else interval_s * GRACE)


class LeaseTable:
    """One lease per service that sends heartbeats.

    Each has one valid entry in a heap: the moment at which it has to be looked at next. A renewal leaves the entry where
    it is, and the look finds that there is more time; so a renewal costs two dictionary writes, and looking costs
    nothing but the leases whose moment has come.
    """

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._agenda: list[tuple[float, str]] = []
        self._next_look_s: dict[str, float] = {}
        self._lapsed: dict[str, float] = {}
        self._to_suspend: dict[str, None] = {}
        self._to_evict: dict[str, None] = {}

    def __getitem__(self, service_id: str) -> Lease:
        return self._leases[service_id]

    def __contains__(self, service_id: str) -> bool:
        return service_id in self._leases

    def __iter__(self) -> Iterator[str]:
        return iter(self._leases)

    def __len__(self) -> int:
        return len(self._leases)

    def expect(
        self, service_id: str, interval_s: int, now_s: float, now_ns: int, evict_after_intervals: int = 0
    ) -> None:
        """Starts a lease, or gives a running one other terms; that alone is no sign of life."""
        lease = self._leases.get(service_id)
        if lease is None or (lease.interval_s, lease.evict_after_intervals) != (interval_s, evict_after_intervals):
            last_ns = lease.last_heartbeat_ns if lease else now_ns
            self._begin(service_id, interval_s, evict_after_intervals, last_ns, now_s)

    def renew(self, service_id: str, now_s: float, now_ns: int) -> None:
        """Notes a sign of life. Nothing happens for a service without a lease."""
        lease = self._leases.get(service_id)
        if lease is not None:
            self._begin(service_id, lease.interval_s, lease.evict_after_intervals, now_ns, now_s)

    def forget(self, service_id: str) -> None:
        """Ends a lease, if there is one."""
        if self._leases.pop(service_id, None) is not None:
            self._next_look_s.pop(service_id, None)
            self._revive(service_id)

    def extend_all(self, seconds: float) -> None:
        """Moves every deadline: for time during which the platform itself could not listen."""
        for service_id, lease in self._leases.items():
            self._leases[service_id] = replace(lease, deadline_s=lease.deadline_s + seconds)
        for service_id in self._next_look_s:
            self._next_look_s[service_id] += seconds
        self._agenda = [(at_s, service_id) for service_id, at_s in self._next_look_s.items()]
        heapify(self._agenda)

    def advance(self, now_s: float) -> None:
        """Notes which leases have lapsed, and which lapsed ones are due for eviction."""
        while self._agenda and self._agenda[0][0] <= now_s:
            at_s, service_id = heappop(self._agenda)
            if self._next_look_s.get(service_id) != at_s:
                continue
            del self._next_look_s[service_id]
            deadline_s = self._leases[service_id].deadline_s
            if service_id in self._lapsed:
                self._to_evict[service_id] = None
            elif deadline_s > now_s:
                self._look_at(service_id, deadline_s)
            else:
                self._lapsed[service_id] = now_s
                self._to_suspend[service_id] = None

    @property
    def to_suspend(self) -> Iterable[str]:
        """Services that have missed an interval and have not been dealt with, as of the last `advance`."""
        return self._to_suspend.keys()

    @property
    def to_evict(self) -> Iterable[str]:
        """Services whose time after their suspension is over, as of the last `advance`."""
        return self._to_evict.keys()

    def note_suspended(self, service_id: str, now_s: float) -> None:
        """The missed interval was dealt with; from now on runs the time to eviction."""
        if service_id in self._to_suspend:
            del self._to_suspend[service_id]
            lease = self._leases[service_id]
            if lease.evict_after_intervals:
                self._look_at(service_id, now_s + lease.interval_s * lease.evict_after_intervals)

    def is_silent(self, service_id: str) -> bool:
        """Whether this service has missed an interval, and was not heard of since."""
        return service_id in self._lapsed

    def count_lapsed(self, after_s: float) -> tuple[int, int]:
        """How many leases have lapsed since then, and of how many that had not lapsed before."""
        recent = 0
        for at_s in reversed(self._lapsed.values()):
            if at_s <= after_s:
                break
            recent += 1
        return recent, len(self._leases) - len(self._lapsed) + recent

    def _begin(self, service_id: str, interval_s: int, evict_after_intervals: int, last_ns: int, now_s: float) -> None:
        deadline_s = now_s + patience_s(interval_s, evict_after_intervals)
        self._leases[service_id] = Lease(interval_s, evict_after_intervals, last_ns, deadline_s)
        self._revive(service_id)
        if self._next_look_s.get(service_id, float("inf")) > deadline_s:
            self._look_at(service_id, deadline_s)

    def _look_at(self, service_id: str, at_s: float) -> None:
        self._next_look_s[service_id] = at_s
        heappush(self._agenda, (at_s, service_id))

    def _revive(self, service_id: str) -> None:
        for silent in (self._lapsed, self._to_suspend, self._to_evict):
            silent.pop(service_id, None)
