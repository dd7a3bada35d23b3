"""The platform's Mp1 interface (ETSI GS MEC 011) as calls: one request each, typed in and out, no state.

`application` builds the behaviour of an application on it. Answers are read leniently: unknown attributes are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from yarl import URL

from mec_apps.sdk.errors import NotRegistered, UnexpectedAnswer
from mec_apps.sdk.session import PlatformSession
from mec_platform.domain.applications import OperationAction
from mec_platform.domain.services import CategoryRef, SerializerType, ServiceState, TransportType

APP_SUPPORT = "mec_app_support/v2"
SERVICE_MANAGEMENT = "mec_service_mgmt/v1"

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOffer:
    """What an application says of a service that it offers. `liveness_s` None: no heartbeats will be sent.

    `details` are for whoever knows this kind of service: the transport's implSpecificInfo.
    """

    name: str
    uri: str
    version: str
    category: CategoryRef | None
    serializer: SerializerType
    transport_type: TransportType
    protocol: str
    liveness_s: int | None
    details: Mapping[str, int | str] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        """ServiceInfo for a POST (clause 8.1.2.2)."""
        message: dict[str, Any] = {
            "serName": self.name,
            "version": self.version,
            "state": ServiceState.ACTIVE,
            "serializer": self.serializer,
            "transportInfo": {
                "id": f"{self.name}-transport",
                "name": self.protocol,
                "type": self.transport_type,
                "protocol": self.protocol,
                "version": "1.1" if self.protocol == "HTTP" else "1",
                "endpoint": {"uris": [self.uri]},
                "security": {},
            },
        }
        if self.details:
            message["transportInfo"]["implSpecificInfo"] = dict(self.details)
        if self.category is not None:
            message["serCategory"] = _category_message(self.category)
        if self.liveness_s is not None:
            message["livenessInterval"] = self.liveness_s
        return message


class _EndPoint(msgspec.Struct):
    uris: list[str] = []


class _Transport(msgspec.Struct):
    type: TransportType
    endpoint: _EndPoint


class _Category(msgspec.Struct):
    id: str


class _Link(msgspec.Struct):
    href: str


class _Links(msgspec.Struct):
    liveness: _Link | None = None


class _Service(msgspec.Struct, rename="camel", kw_only=True):
    ser_instance_id: str
    ser_name: str
    ser_category: _Category | None = None
    version: str
    state: ServiceState
    serializer: SerializerType
    transport_info: _Transport
    is_local: bool = True
    liveness_interval: int | None = None
    links: _Links = msgspec.field(name="_links", default_factory=_Links)


class _WebSocket(msgspec.Struct, rename="camel"):
    websocket_uri: str


class _SelfLink(msgspec.Struct):
    self: _Link


class _Subscription(msgspec.Struct, rename="camel"):
    websock_notif_config: _WebSocket
    links: _SelfLink = msgspec.field(name="_links")


class _App(msgspec.Struct, rename="camel"):
    app_instance_id: str


@dataclass(frozen=True, slots=True)
class ServiceRegistration:
    """What the platform made of an offer; without heartbeats the last two are None."""

    service_id: str
    liveness_uri: str | None
    liveness_interval_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredService:
    """A service that some application of the MEC host offers."""

    service_id: str
    name: str
    version: str
    state: ServiceState
    category_id: str | None
    serializer: SerializerType
    transport_type: TransportType
    uris: tuple[str, ...]
    is_local: bool


@dataclass(frozen=True, slots=True)
class WebSocketSubscription:
    """A subscription and where its notifications are read."""

    uri: str
    websocket_uri: str


class Mp1Client:
    """The calls, over one session that is its owner's to close. Every call may raise any of the SDK's errors."""

    def __init__(self, session: PlatformSession) -> None:
        self._session = session

    async def register_app(self, name: str) -> str:
        """Registers an application instance; returns its id (clause 7.2.13.3.4)."""
        body = await self._session.request("POST", f"{APP_SUPPORT}/registrations", {"appName": name})
        return self._decode(body, _App).app_instance_id

    async def is_registered(self, app_instance_id: str) -> bool:
        """Whether the platform knows the application instance (clause 7.2.14.3.1)."""
        try:
            await self._session.request("GET", f"{APP_SUPPORT}/registrations/{app_instance_id}")
        except NotRegistered:
            return False
        return True

    async def confirm_ready(self, app_instance_id: str) -> None:
        """Says that the application is up and running (clause 7.2.12.3.4)."""
        path = f"{APP_SUPPORT}/applications/{app_instance_id}/confirm_ready"
        await self._session.request("POST", path, {"indication": "READY"})

    async def deregister_app(self, app_instance_id: str) -> None:
        """Ends the registration, and with it that of every service (clause 7.2.14.3.5)."""
        await self._session.request("DELETE", f"{APP_SUPPORT}/registrations/{app_instance_id}")

    async def withdraw_service(self, app_instance_id: str, service_id: str) -> None:
        """Offers a service no more (clause 8.2.7.3.5)."""
        await self._session.request(
            "DELETE", f"{SERVICE_MANAGEMENT}/applications/{app_instance_id}/services/{service_id}"
        )

    async def register_service(self, app_instance_id: str, offer: ServiceOffer) -> ServiceRegistration:
        """Offers a service (clause 8.2.6.3.4)."""
        path = f"{SERVICE_MANAGEMENT}/applications/{app_instance_id}/services"
        service = self._decode(await self._session.request("POST", path, offer.to_message()), _Service)
        liveness = service.links.liveness
        return ServiceRegistration(
            service.ser_instance_id, liveness.href if liveness else None, service.liveness_interval
        )

    async def update_service(self, app_instance_id: str, service_id: str, offer: ServiceOffer) -> None:
        """Says something else of a service that is offered (clause 8.2.7.3.2)."""
        path = f"{SERVICE_MANAGEMENT}/applications/{app_instance_id}/services/{service_id}"
        await self._session.request("PUT", path, offer.to_message())

    async def send_heartbeat(self, liveness_uri: str) -> None:
        """Says that a service is alive (clause 8.2.10.3.3), at the address that its registration named."""
        await self._session.request("PATCH", liveness_uri, {"state": "ACTIVE"})

    async def find_services(self, names: Sequence[str], category_id: str | None) -> list[DiscoveredService]:
        """Services of one of these names, or of the category, or all (clause 8.2.3.3.1); names and category exclude
        each other."""
        query = [("ser_name", name) for name in names]
        if category_id is not None:
            query.append(("ser_category_id", category_id))
        body = await self._session.request("GET", str(URL(f"{SERVICE_MANAGEMENT}/services").with_query(query)))
        return [
            DiscoveredService(
                service_id=service.ser_instance_id,
                name=service.ser_name,
                version=service.version,
                state=service.state,
                category_id=service.ser_category.id if service.ser_category else None,
                serializer=service.serializer,
                transport_type=service.transport_info.type,
                uris=tuple(service.transport_info.endpoint.uris),
                is_local=service.is_local,
            )
            for service in self._decode(body, list[_Service])
        ]

    async def subscribe_to_services(
        self, app_instance_id: str, name: str | None, category: CategoryRef | None
    ) -> WebSocketSubscription:
        """Asks to be told of changes of services of that name or category, or of all (clause 8.2.8.3.4)."""
        criteria: dict[str, Any] = {}
        if name is not None:
            criteria["serNames"] = [name]
        if category is not None:
            criteria["serCategories"] = [_category_message(category)]
        wish = {"subscriptionType": "SerAvailabilityNotificationSubscription", "filteringCriteria": criteria}
        return await self._subscribe(f"{SERVICE_MANAGEMENT}/applications/{app_instance_id}/subscriptions", wish)

    async def subscribe_to_termination(self, app_instance_id: str) -> WebSocketSubscription:
        """Asks to be told of one's own end (clause 7.2.3.3.4)."""
        wish = {"subscriptionType": "AppTerminationNotificationSubscription", "appInstanceId": app_instance_id}
        return await self._subscribe(f"{APP_SUPPORT}/applications/{app_instance_id}/subscriptions", wish)

    async def unsubscribe(self, subscription_uri: str) -> None:
        """Ends a subscription, at the address that its making named."""
        await self._session.request("DELETE", subscription_uri)

    async def confirm_termination(self, app_instance_id: str, action: OperationAction) -> None:
        """Says that the application has done what it had to before its end (clause 7.2.11.3.4)."""
        path = f"{APP_SUPPORT}/applications/{app_instance_id}/confirm_termination"
        await self._session.request("POST", path, {"operationAction": action})

    async def _subscribe(self, path: str, wish: dict[str, Any]) -> WebSocketSubscription:
        wish["websockNotifConfig"] = {"requestWebsocketUri": True}
        made = self._decode(await self._session.request("POST", path, wish), _Subscription)
        return WebSocketSubscription(made.links.self.href, made.websock_notif_config.websocket_uri)

    def _decode(self, body: bytes, answer_type: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(body, type=answer_type)
        except msgspec.DecodeError as error:
            raise UnexpectedAnswer(str(self._session.platform), str(error)) from error


def _category_message(category: CategoryRef) -> dict[str, str]:
    return {"href": category.href, "id": category.id, "name": category.name, "version": category.version}
