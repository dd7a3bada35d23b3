"""Messages of `ServiceRegistry` as domain values. Whatever a stranger may send is checked here, and everything that is wrong
with a message is told at once.

The counterpart of `writing`. Bounds on texts are far beyond what services need and keep a record below 1 MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar

import msgspec

from mec_platform.domain.capabilities import KPI_NAMES, LONGEST_TEXT, Capabilities, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    HostPort,
    JsonText,
    OAuth2GrantType,
    OAuth2Info,
    SerializerType,
    ServiceDescription,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.registry.change_feed import WatchFilter
from mec_platform.registry.errors import UnknownTransport
from mec_platform.registry.idempotency import LONGEST_KEY, is_key
from mec_platform.registry.leases import DEFAULT_INTERVALS_TO_EVICTION
from mec_platform.rpc.v1 import registry_pb2 as pb

Value = TypeVar("Value")
Kind = TypeVar("Kind", bound=StrEnum)

LONGEST_URI = 2048
LONGEST_JSON = 64 * 1024
MOST_ENDPOINTS = 64
MOST_WANTED = 1000
"""Values of one attribute of a filter."""

MOST_HEARTBEATS = 10_000
"""In one message, some 500 KiB."""

DEFAULT_BOOKMARK_S = 10
LONGEST_BOOKMARK_S = 300

MOST_VIOLATIONS = 8
LONGEST_DESCRIPTION = 200
"""Refusals travel in HTTP trailers, of which a client takes 8 KiB."""

FindTransport = Callable[[str], TransportInfo]


@dataclass(frozen=True, slots=True)
class Violation:
    """A field, as a path from the message that was sent, and what it must be."""

    field: str
    description: str


class InvalidRequest(Exception):
    """The message cannot be taken; what is wrong with it, up to `MOST_VIOLATIONS`."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(islice(violations, MOST_VIOLATIONS))
        super().__init__("; ".join(f"{each.field}: {each.description}" for each in self.violations))


def _numbers(prefix: str, numbers: Any, kinds: type[Kind]) -> Mapping[int, Kind]:
    return {int(numbers.Value(f"{prefix}_{each.name}")): each for each in kinds}


STATES = _numbers("SERVICE_STATE", pb.ServiceState, ServiceState)
SERIALIZERS = _numbers("SERIALIZER", pb.Serializer, SerializerType)
TRANSPORT_TYPES = _numbers("TRANSPORT_TYPE", pb.TransportType, TransportType)
SCOPES = _numbers("LOCALITY_SCOPE", pb.LocalityScope, LocalityType)


class _Check:
    """Reads fields and notes what is wrong; `done` raises if anything is."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def note(self, field: str, description: str) -> None:
        self._violations.append(Violation(field, description[:LONGEST_DESCRIPTION]))

    def done(self) -> None:
        if self._violations:
            raise InvalidRequest(self._violations)

    def text(self, field: str, value: str, longest: int = LONGEST_TEXT, *, required: bool = False) -> str:
        if required and not value:
            self.note(field, "must not be empty")
        elif len(value) > longest:
            self.note(field, f"has at most {longest} characters")
        return value

    def texts(self, field: str, values: Iterable[str], most: int, longest: int = LONGEST_TEXT) -> tuple[str, ...]:
        found = tuple(values)
        if len(found) > most:
            self.note(field, f"has at most {most} values")
        elif any(len(each) > longest for each in found):
            self.note(field, f"has values of at most {longest} characters")
        return found

    def kind(self, field: str, number: int, kinds: Mapping[int, Kind], default: Kind) -> Kind:
        if number and number not in kinds:
            self.note(field, f"has no value {number}")
        return kinds.get(number, default)

    def json_object(self, field: str, text: str) -> JsonText:
        self.text(field, text, LONGEST_JSON)
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            self.note(field, "must be a JSON object")
        return JsonText(text)

    def made(self, field: str, make: Callable[[], Value]) -> Value | None:
        try:
            return make()
        except ValueError as error:
            self.note(field, str(error))
            return None


class _Trust(_Check):
    """Takes what another platform has checked already, by rules that may be wider than these: Mp1 bounds bodies, not texts."""

    def text(self, field: str, value: str, longest: int = LONGEST_TEXT, *, required: bool = False) -> str:
        return value

    def texts(self, field: str, values: Iterable[str], most: int, longest: int = LONGEST_TEXT) -> tuple[str, ...]:
        return tuple(values)


def read_id(field: str, value: str) -> str:
    """An id that must be there. Raises InvalidRequest."""
    if not 0 < len(value) <= LONGEST_TEXT:
        raise InvalidRequest([Violation(field, f"has 1 to {LONGEST_TEXT} characters")])
    return value


def read_registration(
    message: pb.RegisterRequest, find_transport: FindTransport
) -> tuple[str, ServiceDescription, str]:
    """Application instance, description with a lease, and idempotency key. Raises InvalidRequest."""
    check = _Check()
    app_instance_id = check.text("app_instance_id", message.app_instance_id, required=True)
    key = message.idempotency_key
    if message.HasField("idempotency_key") and not is_key(key):
        check.note("idempotency_key", f"has 1 to {LONGEST_KEY} printable characters")
    description = _description(check, message.description, find_transport, is_new=True)
    check.done()
    assert description is not None
    return app_instance_id, description, key


def read_update(message: pb.UpdateRequest, find_transport: FindTransport) -> tuple[str, ServiceDescription]:
    """Service and description; without a lease it says nothing of heartbeats. Raises InvalidRequest."""
    check = _Check()
    service_id = check.text("service_id", message.service_id, required=True)
    description = _description(check, message.description, find_transport, is_new=False)
    check.done()
    assert description is not None
    return service_id, description


def read_record(message: pb.ServiceRecord, locality: Locality, origin: str) -> ServiceInfo:
    """A service of another host, without lease and KPIs. Raises InvalidRequest where it holds what this version cannot know."""
    check = _Trust()
    description = _description(check, message.description, _no_transport, is_new=False)
    check.done()
    assert description is not None
    known = {each.name: getattr(description, each.name) for each in fields(ServiceDescription)}
    if not message.description.HasField("capabilities"):
        known["capabilities"] = None
    return replace(
        ServiceInfo(
            **known,
            service_id=message.service_id,
            app_instance_id=message.app_instance_id,
            locality=locality,
            origin=origin,
        ),
        liveness_interval_s=None,
        evict_after_intervals=None,
    )


def _no_transport(transport_id: str) -> TransportInfo:
    raise UnknownTransport(transport_id)


def read_kpis(heartbeat: pb.ServiceHeartbeat, now_ns: int) -> Kpis | None:
    """What a service measured; None where that means nothing."""
    return _kpis(_Check(), 0, heartbeat.kpis, now_ns)


def read_heartbeats(message: pb.RenewRequest, now_ns: int) -> list[tuple[str, Kpis | None]]:
    """Services that were heard of, with what they measured. Raises InvalidRequest."""
    check = _Check()
    if len(message.heartbeats) > MOST_HEARTBEATS:
        check.note("heartbeats", f"has at most {MOST_HEARTBEATS} values")
        check.done()
    found = []
    for number, heartbeat in enumerate(message.heartbeats):
        if not 0 < len(heartbeat.service_id) <= LONGEST_TEXT:
            check.note(f"heartbeats[{number}].service_id", f"has 1 to {LONGEST_TEXT} characters")
        kpis = _kpis(check, number, heartbeat.kpis, now_ns) if heartbeat.HasField("kpis") else None
        found.append((heartbeat.service_id, kpis))
    check.done()
    return found


@dataclass(frozen=True, slots=True)
class Watch:
    """`after_revision` None: from now on."""

    after_revision: int | None
    list_first: bool
    wanted: WatchFilter
    bookmark_s: float


def read_watch(message: pb.WatchRequest, place: Locality) -> Watch:
    """What a watcher at that place wants. Raises InvalidRequest."""
    check = _Check()
    if message.list_first and message.HasField("after_revision"):
        check.note("list_first", "must not come together with after_revision")
    bookmark_s: float = DEFAULT_BOOKMARK_S
    if message.HasField("bookmark_interval_s"):
        bookmark_s = message.bookmark_interval_s
    if bookmark_s == 0 or bookmark_s > LONGEST_BOOKMARK_S:
        check.note("bookmark_interval_s", f"is from 1 to {LONGEST_BOOKMARK_S}")
    if len(message.states) > len(STATES) or any(each not in STATES for each in message.states):
        check.note("states", "names each state once, and none that is unspecified")
    wanted = WatchFilter(
        names=frozenset(check.texts("names", message.names, MOST_WANTED)),
        category_ids=frozenset(check.texts("category_ids", message.category_ids, MOST_WANTED)),
        app_instance_ids=frozenset(check.texts("app_instance_ids", message.app_instance_ids, MOST_WANTED)),
        states=frozenset(STATES[each] for each in message.states if each in STATES),
        models=frozenset(check.texts("models", message.models, MOST_WANTED)),
        place=place,
    )
    check.done()
    return Watch(
        message.after_revision if message.HasField("after_revision") else None, message.list_first, wanted, bookmark_s
    )


def _description(
    check: _Check, message: pb.ServiceDescription, find_transport: FindTransport, *, is_new: bool
) -> ServiceDescription | None:
    at = "description"
    category = message.category if message.HasField("category") else None
    lease = message.lease if is_new or message.HasField("lease") else None
    transport = _transport(check, message, find_transport)
    capabilities = _capabilities(check, message.capabilities)
    name = check.text(f"{at}.name", message.name, required=True)
    version = check.text(f"{at}.version", message.version)
    if transport is None or capabilities is None:
        return None
    eviction = DEFAULT_INTERVALS_TO_EVICTION
    if lease is not None and lease.HasField("evict_after_intervals"):
        eviction = lease.evict_after_intervals
    return ServiceDescription(
        name=name,
        version=version,
        state=check.kind(f"{at}.state", message.state, STATES, ServiceState.ACTIVE),
        transport=transport,
        serializer=check.kind(f"{at}.serializer", message.serializer, SERIALIZERS, SerializerType.PROTOBUF3),
        category=None if category is None else _category(check, category),
        scope_of_locality=check.kind(
            f"{at}.scope_of_locality", message.scope_of_locality, SCOPES, LocalityType.MEC_HOST
        ),
        consumed_local_only=message.consumed_local_only if message.HasField("consumed_local_only") else True,
        capabilities=capabilities,
        liveness_interval_s=None if lease is None else lease.interval_s,
        evict_after_intervals=None if lease is None else eviction,
    )


def _category(check: _Check, message: pb.ServiceCategory) -> CategoryRef:
    at = "description.category"
    return CategoryRef(
        href=check.text(f"{at}.href", message.href, LONGEST_URI),
        id=check.text(f"{at}.id", message.id, required=True),
        name=check.text(f"{at}.name", message.name),
        version=check.text(f"{at}.version", message.version),
    )


def _capabilities(check: _Check, message: pb.ServiceCapabilities) -> Capabilities | None:
    at = "description.capabilities"
    layers: LayerRange | None = None
    if message.HasField("layers"):
        layers = check.made(f"{at}.layers", lambda: LayerRange(message.layers.start, message.layers.stop))
    return check.made(
        at,
        lambda: Capabilities(
            model=message.model,
            layers=layers,
            quantisation=message.quantisation,
            hardware_target=message.hardware_target,
            trust_level=message.trust_level,
            labels=dict(message.labels),
        ),
    )


def _transport(check: _Check, message: pb.ServiceDescription, find_transport: FindTransport) -> TransportInfo | None:
    if message.WhichOneof("reached_by") == "transport_id":
        try:
            return find_transport(message.transport_id)
        except UnknownTransport as error:
            check.note("description.transport_id", str(error))
            return None
    if message.WhichOneof("reached_by") is None:
        check.note("description.transport", "must be there, or transport_id")
        return None
    at, given = "description.transport", message.transport
    endpoint = _endpoint(check, given.endpoint)
    if endpoint is None:
        return None
    return TransportInfo(
        id=check.text(f"{at}.id", given.id, required=True),
        name=check.text(f"{at}.name", given.name),
        type=check.kind(f"{at}.type", given.type, TRANSPORT_TYPES, TransportType.RPC),
        protocol=check.text(f"{at}.protocol", given.protocol),
        version=check.text(f"{at}.version", given.version),
        endpoint=endpoint,
        oauth2=_oauth2(check, given.oauth2) if given.HasField("oauth2") else None,
        description=check.text(f"{at}.description", given.description, LONGEST_URI)
        if given.HasField("description")
        else None,
        implementation_info=check.json_object(f"{at}.implementation_info", given.implementation_info)
        if given.HasField("implementation_info")
        else None,
    )


def _endpoint(check: _Check, message: pb.ServiceEndpoint) -> EndPoint | None:
    at = "description.transport.endpoint"
    match message.WhichOneof("kind"):
        case "uris":
            return EndPoint(uris=check.texts(f"{at}.uris", message.uris.values, MOST_ENDPOINTS, LONGEST_URI))
        case "fqdn":
            return EndPoint(fqdn=check.texts(f"{at}.fqdn", message.fqdn.values, MOST_ENDPOINTS))
        case "addresses":
            hosts = check.texts(f"{at}.addresses", (each.host for each in message.addresses.values), MOST_ENDPOINTS)
            ports = [each.port for each in message.addresses.values]
            if any(port > 65535 for port in ports):
                check.note(f"{at}.addresses", "has ports up to 65535")
            return EndPoint(addresses=tuple(map(HostPort, hosts, ports)))
        case "alternative":
            return EndPoint(alternative=check.json_object(f"{at}.alternative", message.alternative))
        case _:
            check.note(at, "must be one of uris, fqdn, addresses, alternative")
            return None


def _oauth2(check: _Check, message: pb.TransportOAuth2) -> OAuth2Info | None:
    at = "description.transport.oauth2"
    known = set(OAuth2GrantType)
    grants = tuple(OAuth2GrantType(each) for each in message.grant_types if each in known)
    if not 0 < len(message.grant_types) == len(grants) <= len(known):
        check.note(f"{at}.grant_types", f"names some of {', '.join(OAuth2GrantType)}, each once")
    endpoint = check.text(f"{at}.token_endpoint", message.token_endpoint, LONGEST_URI)
    if not message.HasField("token_endpoint") and set(grants) != {OAuth2GrantType.IMPLICIT_GRANT}:
        check.note(f"{at}.token_endpoint", "must be there; only OAUTH2_IMPLICIT_GRANT does without")
    return OAuth2Info(grants, endpoint if message.HasField("token_endpoint") else None)


def _kpis(check: _Check, number: int, message: pb.ServiceKpis, now_ns: int) -> Kpis | None:
    measured = {name: getattr(message, name) for name in KPI_NAMES if message.HasField(name)}  # type: ignore[arg-type]
    measured_ns = message.measured_unix_ns if message.HasField("measured_unix_ns") else now_ns
    return check.made(f"heartbeats[{number}].kpis", lambda: Kpis(measured_unix_ns=measured_ns, **measured))
