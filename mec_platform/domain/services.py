"""Services that MEC applications offer (ETSI GS MEC 011 clause 8.1.2), as frozen values.

Attribute names are the product's own; the camelCase of the standard exists at the HTTP edge only. Counterparts: the
registry keeps these values, `enablement_api` translates them to and from JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NewType

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.locality import Locality, LocalityType

JsonText = NewType("JsonText", str)
"""A JSON object as text: content that the platform stores and returns but does not interpret."""


class ServiceState(StrEnum):
    """MEC 011 clause 8.1.6.6. SUSPENDED: the platform has missed the service's heartbeats."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    SUSPENDED = "SUSPENDED"


class SerializerType(StrEnum):
    """MEC 011 clause 8.1.6.3: how a service writes its messages."""

    JSON = "JSON"
    XML = "XML"
    PROTOBUF3 = "PROTOBUF3"


class TransportType(StrEnum):
    """MEC 011 clause 8.1.6.4: how a service is reached."""

    REST_HTTP = "REST_HTTP"
    MB_TOPIC_BASED = "MB_TOPIC_BASED"
    MB_ROUTING = "MB_ROUTING"
    MB_PUBSUB = "MB_PUBSUB"
    RPC = "RPC"
    RPC_STREAMING = "RPC_STREAMING"
    WEBSOCKET = "WEBSOCKET"


class OAuth2GrantType(StrEnum):
    """MEC 011 clause 8.1.5.4."""

    AUTHORIZATION_CODE = "OAUTH2_AUTHORIZATION_CODE"
    IMPLICIT_GRANT = "OAUTH2_IMPLICIT_GRANT"
    RESOURCE_OWNER = "OAUTH2_RESOURCE_OWNER"
    CLIENT_CREDENTIALS = "OAUTH2_CLIENT_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class CategoryRef:
    """MEC 011 clause 8.1.5.2: an entry of a catalogue of service categories."""

    href: str
    id: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class HostPort:
    """One address of an endpoint."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPoint:
    """MEC 011 clause 8.1.5.3: exactly one of the four is present; an empty list counts as present.

    Raises:
        ValueError: none or several of them are present.
    """

    uris: tuple[str, ...] | None = None
    fqdn: tuple[str, ...] | None = None
    addresses: tuple[HostPort, ...] | None = None
    alternative: JsonText | None = None

    def __post_init__(self) -> None:
        check_endpoint(self)


_WAYS_TO_AN_ENDPOINT = tuple(each.name for each in fields(EndPoint))


def check_endpoint(endpoint: object) -> None:
    """Raises ValueError where not exactly one of the attributes of an `EndPoint` is present in what has them all."""
    present = [each for each in _WAYS_TO_AN_ENDPOINT if getattr(endpoint, each) is not None]
    if len(present) != 1:
        found = " and ".join(present) or "none"
        raise ValueError(f"exactly one of uris, fqdn, addresses, alternative must be present, found {found}")


@dataclass(frozen=True, slots=True)
class OAuth2Info:
    """MEC 011 clause 8.1.5.4: how to obtain a token for a transport."""

    grant_types: tuple[OAuth2GrantType, ...]
    token_endpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportInfo:
    """MEC 011 clause 8.1.2.3: how a service is reached. `oauth2` None means that no token is needed."""

    id: str
    name: str
    type: TransportType
    protocol: str
    version: str
    endpoint: EndPoint
    oauth2: OAuth2Info | None = None
    description: str | None = None
    implementation_info: JsonText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDescription:
    """What an application says of a service that it offers (MEC 011 clause 8.1.2.2).

    `liveness_interval_s` is None where the application sends no heartbeats; in a description 0 leaves the interval to
    the platform. The last two are the platform's own addition, MEC 011 has no attribute for them: `capabilities`, and after
    how many further missed intervals a suspended service is removed; 0 and None stand for never. Where a service is
    described anew, None means that the application does not say, and what was there stays.
    """

    name: str
    version: str
    state: ServiceState
    transport: TransportInfo
    serializer: SerializerType
    category: CategoryRef | None = None
    scope_of_locality: LocalityType = LocalityType.MEC_HOST
    consumed_local_only: bool = True
    liveness_interval_s: int | None = None
    capabilities: Capabilities | None = None
    evict_after_intervals: int | None = None


@dataclass(frozen=True, slots=True)
class RegistrationKey:
    """What its application called a registration, so that it can be repeated, and the digest of what was registered."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo(ServiceDescription):
    """A registered service: the description, what the platform added, and the interval that the platform chose.

    `origin` is the name of the MEC host whose platform looks after it; empty for services of this host. Those of others are
    copies: they change when their owner says so (see `registry.federation`).
    """

    service_id: str
    app_instance_id: str
    locality: Locality
    registration: RegistrationKey | None = None
    origin: str = ""

    def is_local_to(self, consumer: Locality) -> bool:
        """The standard's `isLocal` for this consumer."""
        return self.locality.shares(self.scope_of_locality, consumer)

    def is_offered_at(self, consumer: Locality) -> bool:
        """Whether a consumer at that place may learn of it: `consumedLocalOnly` keeps it to where it is local."""
        return not self.consumed_local_only or self.locality.shares(self.scope_of_locality, consumer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQuery:
    """Which services a consumer asks for: attributes AND, values of one attribute OR, empty and None match all."""

    service_ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    scope_of_locality: LocalityType | None = None
    consumed_local_only: bool | None = None
    is_local: bool | None = None

    def matches(self, service: ServiceInfo, consumer: Locality) -> bool:
        """Whether `service` is wanted by a consumer at that place."""
        category_id = service.category.id if service.category else None
        return (
            (not self.service_ids or service.service_id in self.service_ids)
            and (not self.names or service.name in self.names)
            and (not self.category_ids or category_id in self.category_ids)
            and (not self.states or service.state in self.states)
            and (not self.models or (service.capabilities is not None and service.capabilities.model in self.models))
            and self.scope_of_locality in (None, service.scope_of_locality)
            and self.consumed_local_only in (None, service.consumed_local_only)
            and self.is_local in (None, service.is_local_to(consumer))
        )
