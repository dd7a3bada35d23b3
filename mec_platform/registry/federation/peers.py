"""What is said and known of peers: how they are followed and reached, and how the link to each stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import grpc.aio

from mec_platform.registry.federation.reconciliation import Refused

Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """How peers are followed.

    Attempts to reach one are between `retry_s` and twice that apart. Digests are compared every `digest_s`; a peer of which
    nothing is heard for `silent_after_s` is called again. After `suspend_after_s` without it, its services are SUSPENDED;
    0: never. A list that did not help is asked for again after `digest_s`, then twice as late each time up to `longest_relist_s`.
    """

    retry_s: float = 0.5
    digest_s: float = 10.0
    silent_after_s: float = 25.0
    suspend_after_s: float = 60.0
    longest_relist_s: float = 300.0


class PeerAccess(Protocol):
    """How to reach a peer, and what to show it."""

    @property
    def address(self) -> str:
        """For people."""

    def open_channel(self) -> grpc.aio.Channel:
        """A new channel, which its user closes."""

    async def metadata(self, *, renew: bool) -> Metadata:
        """What goes with a call; with `renew` it is obtained anew, as the peer does not take the last. Raises MendableError."""


@dataclass(slots=True)
class LinkCounts:
    """Since the start, for operators. `listings` by reason, as `FollowStart` names them."""

    connections: int = 0
    listings: Counter[str] = field(default_factory=Counter)
    mismatches: int = 0
    refusals: int = 0
    changes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """How the link to a peer stands. `revision` is how far its history is followed, `lag` how many changes of it were read and
    are not durable yet; `refused` are the services that are not taken over. `follows` says whether it follows this host."""

    name: str
    address: str
    connected: bool
    suspended: bool
    follows: bool
    registry_id: str
    revision: int | None
    services: int
    lag: int
    last_contact_unix_ns: int | None
    counts: LinkCounts
    refused: tuple[Refused, ...]
    error: str
