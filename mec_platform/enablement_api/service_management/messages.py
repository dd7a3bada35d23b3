"""Messages of the service management API (ETSI GS MEC 011 clause 8.1) and their translation to domain values.

Attributes that only the platform writes (serInstanceId, isLocal, _links) are not read: a request that carries them is
accepted and they are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import msgspec

from mec_platform.domain.locality import LocalityType
from mec_platform.domain.services import (
    OAuth2GrantType,
    OAuth2Info,
    SerializerType,
    ServiceDescription,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.enablement_api import endpoints
from mec_platform.enablement_api.endpoints import CategoryRefMessage, EndPointMessage, JsonObject, NonEmpty
from mec_platform.enablement_api.exchange import LinkType, TimeStamp
from mec_platform.enablement_api.schema_rules import Rule, exactly_one_of

LARGEST_INTERVAL_S = 2**31 - 1


class OAuth2InfoMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """SecurityInfo.oAuth2Info, clause 8.1.5.4."""

    schema_rule: ClassVar[Rule] = {
        "anyOf": [
            {"required": ["tokenEndpoint"]},
            {"properties": {"grantTypes": {"items": {"const": OAuth2GrantType.IMPLICIT_GRANT.value}}}},
        ]
    }

    grant_types: Annotated[list[OAuth2GrantType], msgspec.Meta(min_length=1, max_length=4)]
    token_endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.token_endpoint is None and set(self.grant_types) != {OAuth2GrantType.IMPLICIT_GRANT}:
            raise ValueError("tokenEndpoint is missing; only OAUTH2_IMPLICIT_GRANT does without")


class SecurityInfoMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """SecurityInfo, clause 8.1.5.4."""

    oauth2: OAuth2InfoMessage | None = msgspec.field(default=None, name="oAuth2Info")


class TransportInfoMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """TransportInfo, clause 8.1.2.3. `security` is mandatory, if only as an empty object."""

    id: str
    name: str
    description: str | None = None
    type: TransportType
    protocol: str
    version: str
    endpoint: EndPointMessage
    security: SecurityInfoMessage
    impl_specific_info: JsonObject | None = None


class ServiceAttributes(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What POST and PUT of a service have in common, clause 8.1.2.2."""

    ser_name: NonEmpty
    ser_category: CategoryRefMessage | None = None
    version: str
    state: ServiceState
    serializer: SerializerType
    scope_of_locality: LocalityType | None = None
    consumed_local_only: bool | None = None
    liveness_interval: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INTERVAL_S)] | None = None


class ServiceInfoPost(ServiceAttributes, frozen=True, kw_only=True, rename="camel"):
    """A new service: it names a transport of the platform or brings its own."""

    schema_rule: ClassVar[Rule] = exactly_one_of("transportId", "transportInfo")

    transport_id: str | None = None
    transport_info: TransportInfoMessage | None = None

    def __post_init__(self) -> None:
        if (self.transport_id is None) == (self.transport_info is None):
            raise ValueError("exactly one of transportId and transportInfo must be present")


class ServiceInfoPut(ServiceAttributes, frozen=True, kw_only=True, rename="camel"):
    """A service described anew; its transport is always spelt out."""

    transport_info: TransportInfoMessage


class ServiceLinks(msgspec.Struct, frozen=True, omit_defaults=True):
    """ServiceInfo._links; `liveness` where the platform expects heartbeats."""

    self: LinkType
    liveness: LinkType | None = None


class ServiceInfoMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """ServiceInfo as the platform answers it, clause 8.1.2.2."""

    ser_instance_id: str
    ser_name: str
    ser_category: CategoryRefMessage | None = None
    version: str
    state: ServiceState
    transport_info: TransportInfoMessage
    serializer: SerializerType
    scope_of_locality: LocalityType
    consumed_local_only: bool
    is_local: bool
    liveness_interval: int | None = None
    links: ServiceLinks = msgspec.field(name="_links")


class ServiceLivenessInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 8.1.2.4."""

    state: ServiceState
    time_stamp: TimeStamp
    interval: int


class ServiceLivenessUpdate(msgspec.Struct, frozen=True):
    """A heartbeat, clause 8.1.2.5; its state is always ACTIVE."""

    state: Literal["ACTIVE"]


def to_description(
    message: ServiceInfoPost | ServiceInfoPut, platform_transport: Callable[[str], TransportInfo]
) -> ServiceDescription:
    """The domain's description, defaults of the standard filled in; `platform_transport` resolves a transportId."""
    if isinstance(message, ServiceInfoPost) and message.transport_id is not None:
        transport = platform_transport(message.transport_id)
    else:
        assert message.transport_info is not None
        transport = to_transport(message.transport_info)
    return ServiceDescription(
        name=message.ser_name,
        version=message.version,
        state=message.state,
        transport=transport,
        serializer=message.serializer,
        category=endpoints.to_category(message.ser_category),
        scope_of_locality=message.scope_of_locality or LocalityType.MEC_HOST,
        consumed_local_only=message.consumed_local_only is not False,
        liveness_interval_s=message.liveness_interval,
    )


def to_transport(message: TransportInfoMessage) -> TransportInfo:
    """The domain's transport."""
    oauth2 = message.security.oauth2
    return TransportInfo(
        id=message.id,
        name=message.name,
        description=message.description,
        type=message.type,
        protocol=message.protocol,
        version=message.version,
        endpoint=endpoints.to_endpoint(message.endpoint),
        oauth2=None if oauth2 is None else OAuth2Info(tuple(oauth2.grant_types), oauth2.token_endpoint),
        implementation_info=endpoints.to_json_text(message.impl_specific_info),
    )


def from_transport(transport: TransportInfo) -> TransportInfoMessage:
    """The opposite of `to_transport`."""
    oauth2 = transport.oauth2
    return TransportInfoMessage(
        id=transport.id,
        name=transport.name,
        description=transport.description,
        type=transport.type,
        protocol=transport.protocol,
        version=transport.version,
        endpoint=endpoints.from_endpoint(transport.endpoint),
        security=SecurityInfoMessage(
            None if oauth2 is None else OAuth2InfoMessage(list(oauth2.grant_types), oauth2.token_endpoint)
        ),
        impl_specific_info=endpoints.from_json_text(transport.implementation_info),
    )


def from_service(service: ServiceInfo, *, is_local: bool, self_uri: str, liveness_uri: str) -> ServiceInfoMessage:
    """A service as one consumer sees it."""
    return ServiceInfoMessage(
        ser_instance_id=service.service_id,
        ser_name=service.name,
        ser_category=endpoints.from_category(service.category),
        version=service.version,
        state=service.state,
        transport_info=from_transport(service.transport),
        serializer=service.serializer,
        scope_of_locality=service.scope_of_locality,
        consumed_local_only=service.consumed_local_only,
        is_local=is_local,
        liveness_interval=service.liveness_interval_s,
        links=links_of(service, self_uri, liveness_uri),
    )


def links_of(service: ServiceInfo, self_uri: str, liveness_uri: str) -> ServiceLinks:
    """Its links; heartbeats go to `liveness_uri` where the platform expects any."""
    monitored = service.liveness_interval_s is not None
    return ServiceLinks(LinkType(self_uri), LinkType(liveness_uri) if monitored else None)
