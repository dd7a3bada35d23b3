"""MEC applications and the services that they offer (ETSI GS MEC 011, clauses 7.1.2.6 and 8.1.2), as frozen values.

Attribute names are the product's own; the camelCase of the standard exists at the HTTP edge only. Counterparts: the
registry keeps these values, `enablement_api` translates them to and from JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NewType

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


class LocalityType(StrEnum):
    """MEC 011 clause 8.1.6.5: the area within which a service counts as local."""

    MEC_SYSTEM = "MEC_SYSTEM"
    MEC_HOST = "MEC_HOST"
    NFVI_POP = "NFVI_POP"
    ZONE = "ZONE"
    ZONE_GROUP = "ZONE_GROUP"
    NFVI_NODE = "NFVI_NODE"


class OAuth2GrantType(StrEnum):
    """MEC 011 clause 8.1.5.4."""

    AUTHORIZATION_CODE = "OAUTH2_AUTHORIZATION_CODE"
    IMPLICIT_GRANT = "OAUTH2_IMPLICIT_GRANT"
    RESOURCE_OWNER = "OAUTH2_RESOURCE_OWNER"
    CLIENT_CREDENTIALS = "OAUTH2_CLIENT_CREDENTIALS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Where an application instance or a consumer is; an empty name is unknown, only the host is always known."""

    mec_host: str
    mec_system: str = ""
    nfvi_pop: str = ""
    zone: str = ""
    zone_group: str = ""
    nfvi_node: str = ""

    def shares(self, scope: LocalityType, other: Locality) -> bool:
        """Whether both are in the same area of kind `scope`.

        Where one of the two does not know its area, being on the same host decides: a host lies within one system,
        zone and point of presence, and a host that names no NFVI node is taken as one node.
        """
        attribute = scope.value.lower()
        mine, theirs = getattr(self, attribute), getattr(other, attribute)
        if mine and theirs:
            return bool(mine == theirs)
        return self.mec_host == other.mec_host


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
        present = [field.name for field in fields(self) if getattr(self, field.name) is not None]
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
    the platform.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo(ServiceDescription):
    """A registered service: the description, what the platform added, and the interval that the platform chose."""

    service_id: str
    app_instance_id: str
    locality: Locality

    def is_local_to(self, consumer: Locality) -> bool:
        """The standard's `isLocal` for this consumer."""
        return self.locality.shares(self.scope_of_locality, consumer)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppDescription:
    """What an application says of itself when it registers (MEC 011 clause 7.1.2.6).

    `requirements` holds the attributes that the platform keeps and returns without acting on them.
    """

    name: str
    provider: str | None = None
    descriptor_id: str | None = None
    category: CategoryRef | None = None
    endpoint: EndPoint | None = None
    instantiated_by_mec: bool = False
    requirements: JsonText = JsonText("{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInstance(AppDescription):
    """A registered application instance. `ready` once it has confirmed that it is up and running."""

    app_instance_id: str
    locality: Locality
    ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceQuery:
    """Which services a consumer asks for: attributes AND, values of one attribute OR, empty and None match all."""

    service_ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    category_ids: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
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
            and self.scope_of_locality in (None, service.scope_of_locality)
            and self.consumed_local_only in (None, service.consumed_local_only)
            and self.is_local in (None, service.is_local_to(consumer))
        )
