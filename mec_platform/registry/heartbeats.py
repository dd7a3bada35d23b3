"""The port through which replicas tell each other whose heartbeats they got; `etcd` implements it, `heartbeat_relay` uses it.

A heartbeat reaches one replica and renews a lease in its memory; the leader, who suspends those that are overdue, has to
hear of it too. Heartbeats are told together, some times a second, and are not kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from mec_platform.domain.capabilities import Kpis


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a service was heard of (Unix time in nanoseconds), and how it was doing if it said so."""

    at_unix_ns: int
    kpis: Kpis | None = None


Heartbeats = Mapping[str, Heartbeat]
"""By service id."""


class HeartbeatExchange(Protocol):
    """What is lost here is made up for by the next heartbeat of a service."""

    async def tell(self, heard: Heartbeats) -> None:
        """Tells all other replicas. Raises LogUnavailable."""

    def hear(self) -> AsyncGenerator[Heartbeats, None]:
        """What the others tell from now on, for ever. Raises LogUnavailable."""
