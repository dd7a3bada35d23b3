"""Heartbeats (ETSI GS MEC 011 clause 8.2.10): who must be heard of by when. In memory only, pure, no clock.

Heartbeats are far more frequent than changes, so they renew leases here and never reach the log; only a missed one
becomes an event. After a restart every lease starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SHORTEST_INTERVAL_S = 1
LONGEST_INTERVAL_S = 3600
DEFAULT_INTERVAL_S = 30
"""For an application without a preference: a dead service disappears within a minute, at two requests a minute."""

GRACE = 0.5
"""Part of an interval by which a heartbeat may be late: sent exactly on time, one slow request must not suspend."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The last sign of life (Unix time) and the moment (monotonic) at which silence becomes a missed interval."""

    interval_s: int
    last_heartbeat_ns: int
    deadline_s: float


def choose_interval_s(offered_s: int) -> int:
    """The platform's interval for what an application offers; 0 means no preference."""
    if offered_s == 0:
        return DEFAULT_INTERVAL_S
    return min(max(offered_s, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


class LeaseTable:
    """One lease per service that sends heartbeats."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def __getitem__(self, service_id: str) -> Lease:
        return self._leases[service_id]

    def __contains__(self, service_id: str) -> bool:
        return service_id in self._leases

    def expect(self, service_id: str, interval_s: int, now_s: float, now_ns: int) -> None:
        """Starts a lease, or gives a running one another interval; that alone is no sign of life."""
        lease = self._leases.get(service_id)
        if lease is None or lease.interval_s != interval_s:
            last_ns = lease.last_heartbeat_ns if lease else now_ns
            self._leases[service_id] = Lease(interval_s, last_ns, now_s + interval_s * (1 + GRACE))

    def renew(self, service_id: str, now_s: float, now_ns: int) -> None:
        """Notes a sign of life. Nothing happens for a service without a lease."""
        lease = self._leases.get(service_id)
        if lease is not None:
            self._leases[service_id] = Lease(lease.interval_s, now_ns, now_s + lease.interval_s * (1 + GRACE))

    def begin_anew(self, now_s: float) -> None:
        """Gives every service a whole interval from now on: for signs of life that may have been missed here."""
        for service_id, lease in self._leases.items():
            deadline_s = max(lease.deadline_s, now_s + lease.interval_s * (1 + GRACE))
            self._leases[service_id] = replace(lease, deadline_s=deadline_s)

    def forget(self, service_id: str) -> None:
        """Ends a lease, if there is one."""
        self._leases.pop(service_id, None)

    def extend_all(self, seconds: float) -> None:
        """Moves every deadline: for time during which the platform itself could not listen."""
        for service_id, lease in self._leases.items():
            self._leases[service_id] = replace(lease, deadline_s=lease.deadline_s + seconds)

    def is_overdue(self, service_id: str, now_s: float) -> bool:
        """Whether this service has missed an interval; never without a lease."""
        return service_id in self._leases and self._leases[service_id].deadline_s <= now_s

    def overdue(self, now_s: float) -> list[str]:
        """Services that have missed an interval."""
        return [service_id for service_id in self._leases if self.is_overdue(service_id, now_s)]
