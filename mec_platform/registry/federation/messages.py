"""Messages of `Federation` as values, both ways. What a peer may not send is told to it all at once, as for any other client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from mec_platform.domain.capabilities import LONGEST_TEXT
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.change_feed import Change, ChangeSet, WatchFilter
from mec_platform.registry.federation.reconciliation import shared_view
from mec_platform.registry.grpc.reading import InvalidRequest, Violation, read_record
from mec_platform.registry.grpc.writing import LARGEST_MESSAGE_BYTES, record_of
from mec_platform.rpc.v1 import federation_pb2 as pb

DEFAULT_DIGEST_MS = 10_000
SHORTEST_DIGEST_MS, LONGEST_DIGEST_MS = 10, 300_000


@dataclass(frozen=True, slots=True)
class Follow:
    """Who wants to follow, from where in the history on, and how often it wants to compare."""

    place: Locality
    registry_id: str
    after: PeerCursor | None
    digest_s: float


def write_place(place: Locality) -> pb.HostPlace:
    """Where something is, as a message."""
    return pb.HostPlace(**{each.name: getattr(place, each.name) for each in fields(Locality)})


def read_place(message: pb.HostPlace) -> Locality:
    """The opposite of `write_place`."""
    return Locality(**{each.name: getattr(message, each.name) for each in fields(Locality)})


def write_follow(wish: Follow) -> pb.FollowRequest:
    """The request of a follower; without a revision there is nothing to go on from."""
    after = wish.after
    return pb.FollowRequest(
        place=write_place(wish.place),
        registry_id=wish.registry_id,
        after=None
        if after is None or after.revision is None
        else pb.FollowCursor(registry_id=after.registry_id, revision=after.revision),
        digest_interval_ms=round(wish.digest_s * 1e3),
    )


def read_follow(message: pb.FollowRequest) -> Follow:
    """The opposite of `write_follow`. Raises InvalidRequest."""
    place = read_place(message.place)
    digest_ms = message.digest_interval_ms if message.HasField("digest_interval_ms") else DEFAULT_DIGEST_MS
    violations = []
    if not place.mec_host:
        violations.append(Violation("place.mec_host", "must not be empty"))
    if any(len(getattr(place, each.name)) > LONGEST_TEXT for each in fields(Locality)):
        violations.append(Violation("place", f"has names of at most {LONGEST_TEXT} characters"))
    if not message.registry_id:
        violations.append(Violation("registry_id", "must not be empty"))
    if not SHORTEST_DIGEST_MS <= digest_ms <= LONGEST_DIGEST_MS:
        violations.append(Violation("digest_interval_ms", f"is from {SHORTEST_DIGEST_MS} to {LONGEST_DIGEST_MS}"))
    if violations:
        raise InvalidRequest(violations)
    after = PeerCursor(message.after.registry_id, message.after.revision) if message.HasField("after") else None
    return Follow(place, message.registry_id, after, digest_ms / 1e3)


def read_service(message: pb.SharedService, peer: str) -> ServiceInfo:
    """A service of that peer. Raises InvalidRequest where it holds what this version cannot know."""
    return read_record(message.service, read_place(message.locality), peer)


def write_service(service: ServiceInfo) -> pb.SharedService:
    """The opposite of `read_service`."""
    return pb.SharedService(service=record_of(shared_view(service)), locality=write_place(service.locality))


def write_changes(changes: ChangeSet, wanted: WatchFilter) -> Iterator[bytes]:
    """`FollowReply` messages of what concerns a follower; none where nothing does."""
    selected = wanted.select(changes)
    if selected:
        yield from _messages((_written(change, kind) for change, kind in selected), changes.revision, is_listing=False)


def write_listing(services: Iterable[ServiceInfo], revision: int) -> Iterator[bytes]:
    """`FollowReply` messages of everything that is shared; one at least."""
    return _messages(map(_put, services), revision, is_listing=True)


def _written(change: Change, kind: ChangeType) -> bytes:
    """Written once for all followers; within a reply, protobuf reads pieces that follow each other as one."""
    is_gone = kind is ChangeType.REMOVED
    key = ("shared", is_gone)
    known = change.encoded.get(key)
    if known is None:
        service = change.service
        known = _part(pb.SharedChanges(removed_ids=[service.service_id])) if is_gone else _put(service)
        change.encoded[key] = known
    return known


def _put(service: ServiceInfo) -> bytes:
    return _part(pb.SharedChanges(put=[write_service(service)]))


def _part(changes: pb.SharedChanges) -> bytes:
    return pb.FollowReply(changes=changes).SerializeToString()


def _messages(parts: Iterable[bytes], revision: int, *, is_listing: bool) -> Iterator[bytes]:
    waiting, size = list[bytes](), 0
    for part in parts:
        if size + len(part) > LARGEST_MESSAGE_BYTES and waiting:
            yield b"".join(waiting) + _part(pb.SharedChanges(is_listing=is_listing, more=True))
            waiting, size = [], 0
        waiting.append(part)
        size += len(part)
    yield b"".join(waiting) + _part(pb.SharedChanges(is_listing=is_listing, revision=revision))
