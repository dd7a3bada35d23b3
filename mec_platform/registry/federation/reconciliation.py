"""What a peer's services change here: pure decisions about copies, and the digest by which two hosts compare them.

No clock, no input or output; `peer_link` asks and acts. A copy belongs to the peer that it came from. Nothing that a peer says
touches a service of this host or of another peer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.services import ServiceInfo, ServiceState

Value = TypeVar("Value")

LARGEST_STEP = 256
"""Services that one event changes: a list of thousands must not hold up other changes, nor be one notification."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A service that a peer has told of and that is not taken over, and why. `service` None: it cannot be read here."""

    service_id: str
    reason: str
    service: ServiceInfo | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What to do so that the copies are what the peer says."""

    put: tuple[ServiceInfo, ...] = ()
    removed: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()

    def __bool__(self) -> bool:
        """Whether copies change."""
        return bool(self.put or self.removed)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a reconciliation; the cursor is that of the whole with the last one only."""

    put: tuple[ServiceInfo, ...]
    removed: tuple[str, ...]
    cursor: PeerCursor


def decide_changes(
    present: Mapping[str, ServiceInfo], peer: str, put: Iterable[ServiceInfo], removed: Iterable[str]
) -> Reconciliation:
    """What changes where these services are new or different, and those are gone; `present` has all services of this host.

    What is as it should be already is left out, so that a repetition changes nothing and tells nobody.
    """
    wanted: list[ServiceInfo] = []
    refused: list[Refused] = []
    for service in put:
        known = present.get(service.service_id)
        reason = _reason_against(service, known, peer)
        if reason:
            refused.append(Refused(service.service_id, reason, service))
        elif known != service:
            wanted.append(service)
    gone = tuple(each for each in removed if each in present and present[each].origin == peer)
    return Reconciliation(tuple(wanted), gone, tuple(refused))


def _reason_against(service: ServiceInfo, known: ServiceInfo | None, peer: str) -> str:
    if known is not None and known.origin != peer:
        return f"the id is one of {known.origin or 'this host'}"
    if service.locality.mec_host != peer:
        return f"it is said to be at {service.locality.mec_host!r}"
    return ""


def decide_listing(
    present: Mapping[str, ServiceInfo], copies: Iterable[str], peer: str, listed: Collection[ServiceInfo]
) -> Reconciliation:
    """As `decide_changes`, where `listed` is all that the peer shares: copies that are not among them are gone."""
    there = {service.service_id for service in listed}
    return decide_changes(present, peer, listed, [each for each in copies if each not in there])


def decide_suspension(copies: Iterable[ServiceInfo]) -> tuple[ServiceInfo, ...]:
    """The copies of a peer that is not heard of, as they are from now on where that is another state than before."""
    return tuple(
        replace(service, state=ServiceState.SUSPENDED) for service in copies if service.state is ServiceState.ACTIVE
    )


def steps_of(whole: Reconciliation, cursor: PeerCursor, largest: int = LARGEST_STEP) -> Iterator[Step]:
    """Portions that can be taken one after the other; one at least.

    Between them the copy is of no moment: whoever stops there has to list again.
    """
    between = PeerCursor(cursor.registry_id, None)
    steps = [Step(piece, (), between) for piece in _pieces(whole.put, largest)]
    steps += [Step((), piece, between) for piece in _pieces(whole.removed, largest)]
    yield from steps[:-1]
    yield replace(steps[-1], cursor=cursor) if steps else Step((), (), cursor)


def _pieces(of: tuple[Value, ...], largest: int) -> Iterator[tuple[Value, ...]]:
    return (of[start : start + largest] for start in range(0, len(of), largest))


def shared_view(service: ServiceInfo) -> ServiceInfo:
    """A service as other hosts know it: how it is kept alive and registered is its own host's affair."""
    return replace(service, liveness_interval_s=None, evict_after_intervals=None, registration=None, origin="")


@dataclass(slots=True)
class Digests:
    """Digests of many services, with the hash of each kept for as long as the service stays the same value."""

    _hashes: dict[str, tuple[ServiceInfo, bytes]] = field(default_factory=dict)

    def digest_of(self, services: Iterable[ServiceInfo]) -> bytes:
        """SHA-256 over the sorted ids and content hashes; the same for an owner and whoever has its services as they are."""
        kept, self._hashes = self._hashes, {}
        for service in services:
            known = kept.get(service.service_id)
            if known is None or known[0] is not service:
                known = service, content_hash(service)
            self._hashes[service.service_id] = known
        whole = hashlib.sha256()
        for service_id in sorted(self._hashes):
            whole.update(self._hashes[service_id][1])
        return whole.digest()


def content_hash(service: ServiceInfo) -> bytes:
    """Of everything that other hosts know of a service, its id included."""
    return hashlib.sha256(_ENCODER.encode(shared_view(service))).digest()


_ENCODER = msgspec.json.Encoder(order="deterministic")
