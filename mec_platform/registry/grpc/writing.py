"""Services as messages, each written once for as long as it stays what it is, and changes once for all who watch.

The counterpart of `reading`. Answers are put together from written pieces: protobuf reads messages that follow each other
as one, with their repeated fields one behind the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import TypeVar

from mec_platform.domain.capabilities import KPI_NAMES, Capabilities, Kpis
from mec_platform.domain.services import EndPoint, ServiceInfo, TransportInfo
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.change_feed import Change, ChangeSet, WatchFilter
from mec_platform.registry.grpc import wire
from mec_platform.registry.grpc.reading import SCOPES, SERIALIZERS, STATES, TRANSPORT_TYPES
from mec_platform.rpc.v1 import registry_pb2 as pb
from mec_platform.rpc.v1 import types_pb2

Kind = TypeVar("Kind", bound=StrEnum)
Value = TypeVar("Value")

MOST_KEPT = 50_000
"""Written services, some 1 KiB each. A platform with more than that begins anew, rather than keep track of their use."""

LARGEST_MESSAGE_BYTES = 1 << 18
"""A message is closed by the piece that comes to this, some 500 services: they take 15 ms to write, and then others have
their turn. What a client takes without being told to take more is 4 MiB."""


def _by_value(kinds: Mapping[int, Kind]) -> Mapping[Kind, int]:
    return {kind: number for number, kind in kinds.items()}


_STATES, _SERIALIZERS = _by_value(STATES), _by_value(SERIALIZERS)
_TRANSPORT_TYPES, _SCOPES = _by_value(TRANSPORT_TYPES), _by_value(SCOPES)
_CHANGES = {each: pb.ChangeKind.Value(f"CHANGE_KIND_{each.name}") for each in ChangeType}


class RecordWriter:
    """Keeps what it has written; a service that has changed is another value, and is written again."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[ServiceInfo, bytes]] = {}
        self._listed: dict[str, tuple[ServiceInfo, bytes]] = {}
        self._kpis: dict[str, tuple[Kpis, bytes]] = {}

    def record(self, service: ServiceInfo, kpis: Kpis | None = None) -> bytes:
        """A `ServiceRecord`."""
        known = self._records.get(service.service_id)
        if known is None or known[0] is not service:
            known = service, record_of(service).SerializeToString()
            _keep(self._records, service.service_id, known)
        return known[1] if kpis is None else known[1] + self._written_kpis(service.service_id, kpis)

    def registered(self, service: ServiceInfo, revision: int) -> bytes:
        """A `RegisterReply`."""
        return wire.nested(1, self.record(service)) + wire.unsigned(2, revision)

    def _written_kpis(self, service_id: str, kpis: Kpis) -> bytes:
        known = self._kpis.get(service_id)
        if known is None or known[0] is not kpis:
            known = kpis, pb.ServiceRecord(kpis=kpis_of(kpis)).SerializeToString()
            _keep(self._kpis, service_id, known)
        return known[1]

    def listing(self, services: Iterable[ServiceInfo], revision: int) -> Iterator[bytes]:
        """`WatchReply` messages that list services as they are at a revision; one at least."""
        return _messages(map(self._listing_of, services), revision)

    def _listing_of(self, service: ServiceInfo) -> bytes:
        known = self._listed.get(service.service_id)
        if known is None or known[0] is not service:
            known = service, _change(pb.CHANGE_KIND_LISTED, service)
            _keep(self._listed, service.service_id, known)
        return known[1]


def bulk_reply(registered: bytes) -> bytes:
    """A `RegisterBulkReply` with this `RegisterReply`."""
    return wire.nested(1, registered)


def write_changes(changes: ChangeSet, wanted: WatchFilter) -> tuple[bytes, ...]:
    """`WatchReply` messages of what concerns a watcher; none where nothing does."""
    selected = wanted.select(changes)
    if not selected:
        return ()
    if len(selected) > 1:
        return tuple(_messages((_written(change, kind) for change, kind in selected), changes.revision))
    # The usual case: the message is the same for all who get one.
    ((change, kind),) = selected
    key = (id(change), kind)
    known = changes.encoded.get(key)
    if known is None:
        known = changes.encoded[key] = tuple(_messages([_written(change, kind)], changes.revision))
    return known


def bookmark(revision: int) -> bytes:
    """A `WatchReply` without changes."""
    return pb.WatchReply(revision=revision).SerializeToString()


def record_of(service: ServiceInfo) -> pb.ServiceRecord:
    """A service without its KPIs, as a message."""
    category, interval_s = service.category, service.liveness_interval_s
    return pb.ServiceRecord(
        service_id=service.service_id,
        app_instance_id=service.app_instance_id,
        origin=service.origin,
        description=pb.ServiceDescription(
            name=service.name,
            version=service.version,
            state=_STATES[service.state],  # type: ignore[arg-type]
            serializer=_SERIALIZERS[service.serializer],  # type: ignore[arg-type]
            transport=_transport(service.transport),
            category=None
            if category is None
            else pb.ServiceCategory(href=category.href, id=category.id, name=category.name, version=category.version),
            scope_of_locality=_SCOPES[service.scope_of_locality],  # type: ignore[arg-type]
            consumed_local_only=service.consumed_local_only,
            capabilities=None if service.capabilities is None else _capabilities(service.capabilities),
            lease=None
            if interval_s is None
            else pb.ServiceLease(interval_s=interval_s, evict_after_intervals=service.evict_after_intervals or 0),
        ),
    )


def _transport(transport: TransportInfo) -> pb.ServiceTransport:
    oauth2 = transport.oauth2
    return pb.ServiceTransport(
        id=transport.id,
        name=transport.name,
        type=_TRANSPORT_TYPES[transport.type],  # type: ignore[arg-type]
        protocol=transport.protocol,
        version=transport.version,
        endpoint=_endpoint(transport.endpoint),
        oauth2=None
        if oauth2 is None
        else pb.TransportOAuth2(grant_types=oauth2.grant_types, token_endpoint=oauth2.token_endpoint),
        description=transport.description,
        implementation_info=transport.implementation_info,
    )


def _endpoint(endpoint: EndPoint) -> pb.ServiceEndpoint:
    if endpoint.uris is not None:
        return pb.ServiceEndpoint(uris=pb.ServiceEndpoint.Texts(values=endpoint.uris))
    if endpoint.fqdn is not None:
        return pb.ServiceEndpoint(fqdn=pb.ServiceEndpoint.Texts(values=endpoint.fqdn))
    if endpoint.addresses is not None:
        addresses = [pb.ServiceAddress(host=each.host, port=each.port) for each in endpoint.addresses]
        return pb.ServiceEndpoint(addresses=pb.ServiceEndpoint.Addresses(values=addresses))
    return pb.ServiceEndpoint(alternative=endpoint.alternative or "")


def _capabilities(capabilities: Capabilities) -> pb.ServiceCapabilities:
    layers = capabilities.layers
    return pb.ServiceCapabilities(
        model=capabilities.model,
        layers=None if layers is None else types_pb2.LayerRange(start=layers.start, stop=layers.stop),
        quantisation=capabilities.quantisation,
        hardware_target=capabilities.hardware_target,
        trust_level=capabilities.trust_level,
        labels=dict(capabilities.labels),
    )


def kpis_of(kpis: Kpis) -> pb.ServiceKpis:
    """What a service measured, as a message."""
    measured = {name: value for name in KPI_NAMES if (value := getattr(kpis, name)) is not None}
    return pb.ServiceKpis(measured_unix_ns=kpis.measured_unix_ns, **measured)


def _written(change: Change, kind: ChangeType) -> bytes:
    known = change.encoded.get(kind)
    if known is None:
        known = change.encoded[kind] = _change(_CHANGES[kind], change.service)
    return known


def _change(kind: pb.ChangeKind.ValueType, service: ServiceInfo) -> bytes:
    return pb.WatchReply(changes=[pb.ServiceChange(kind=kind, service=record_of(service))]).SerializeToString()


def _messages(pieces: Iterable[bytes], revision: int) -> Iterator[bytes]:
    waiting, size = list[bytes](), 0
    for piece in pieces:
        if size + len(piece) > LARGEST_MESSAGE_BYTES and waiting:
            yield b"".join(waiting) + _MORE
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    yield b"".join(waiting) + bookmark(revision)


_MORE = pb.WatchReply(more=True).SerializeToString()


def _keep(kept: dict[str, tuple[Value, bytes]], service_id: str, written: tuple[Value, bytes]) -> None:
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[service_id] = written
