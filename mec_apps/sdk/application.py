"""A MEC application's life with its platform: register, offer, stay alive, discover, leave.

async with MecApplication("http://127.0.0.1:8081", name="greeter") as app:
    await app.offer_service("greeting", "http://10.0.0.5:9000/", version="1.0")
    for service in await app.discover(name="weather"):
        ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import msgspec

from mec_apps.sdk.errors import MecError, NotRegistered
from mec_apps.sdk.mp1 import (
    DiscoveredService,
    Mp1Client,
    ServiceOffer,
    ServiceRegistration,
    WebSocketSubscription,
)
from mec_apps.sdk.notifications import NotificationStream, Subscribe, Watch
from mec_apps.sdk.session import Access, ClientCertificate, ClientCredentials, PlatformSession
from mec_platform.background import BackgroundTasks
from mec_platform.domain.applications import OperationAction
from mec_platform.domain.services import CategoryRef, SerializerType, ServiceState, TransportType

logger = logging.getLogger(__name__)

DEFAULT_LIVENESS_S = 10

HEARTBEATS_PER_INTERVAL = 2
"""One heartbeat may get lost without the service being taken for dead."""


class _TerminationNotice(msgspec.Struct, rename="camel"):
    operation_action: OperationAction
    max_graceful_timeout: int


class OfferedService:
    """A service of this application. Its id changes when the platform forgot it and it was registered again."""

    def __init__(self, offer: ServiceOffer, app_instance_id: str, registration: ServiceRegistration) -> None:
        self._offer = offer
        self._app_instance_id = app_instance_id
        self._registration = registration

    @property
    def service_id(self) -> str:
        """The platform's id of the service."""
        return self._registration.service_id

    @property
    def liveness_interval_s(self) -> int | None:
        """The interval that the platform chose; None where it expects no heartbeats."""
        return self._registration.liveness_interval_s


class MecApplication:
    """An application instance, registered while the `async with` block runs.

    While it runs, each offered service sends heartbeats. Where the platform has forgotten the application (its state
    was lost), the next heartbeat finds out and registers everything again; while it does not answer, heartbeats go on
    trying. On leaving, the registration is taken back.

    Args:
        platform_url: address of the platform's REST APIs.
        name: what the application calls itself; need not be unique.
        app_instance_id: the instance that an operator has made for this application (`mec app create`). On leaving it stays,
            and what it offers is withdrawn. Without it the application registers an instance of its own.
        credentials: what a platform that authenticates its clients wants to see; `ClientCredentials.read` reads a file.
        ca: certificate (PEM) of the authority to trust where the platform's TLS is signed by one of its own.
        certificate: what a platform with mutual TLS wants to see.
        request_timeout_s: after this long without an answer a request fails with PlatformUnreachable.
        sleep: how heartbeats wait.

    Raises:
        PlatformUnreachable, PlatformUntrusted, RequestRefused, UnexpectedAnswer: on entering and from each request.
    """

    def __init__(
        self,
        platform_url: str,
        *,
        name: str,
        app_instance_id: str | None = None,
        credentials: ClientCredentials | None = None,
        ca: Path | None = None,
        certificate: ClientCertificate | None = None,
        request_timeout_s: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._platform_url = platform_url
        self._name = name
        self._access = Access(credentials=credentials, ca=ca, certificate=certificate)
        self._request_timeout_s = request_timeout_s
        self._sleep = sleep
        self._services: list[OfferedService] = []
        self._restoring = asyncio.Lock()
        self._tasks = BackgroundTasks()
        self._given_id = app_instance_id
        self._app_instance_id = ""
        self._streams: list[NotificationStream] = []
        self._ended = asyncio.Event()

    @property
    def app_instance_id(self) -> str:
        """The platform's id of this application instance."""
        return self._app_instance_id

    async def __aenter__(self) -> Self:
        self._session = PlatformSession(self._platform_url, self._request_timeout_s, self._access)
        self._mp1 = Mp1Client(self._session)
        try:
            await self._register()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._tasks.stop()
        for stream in self._streams:
            await stream.close()
        try:
            await self._leave()
        except NotRegistered:
            logger.debug("the platform had forgotten application %s already", self._name)
        except MecError as reason:
            # Leaving must work without the platform too; it will miss the heartbeats.
            logger.warning("application %s leaves without telling the platform: %s", self._name, reason)
        finally:
            await self._session.close()

    async def offer_service(
        self,
        name: str,
        uri: str,
        *,
        version: str,
        category: str | CategoryRef | None = None,
        liveness_s: int | None = DEFAULT_LIVENESS_S,
        serializer: SerializerType = SerializerType.JSON,
        transport_type: TransportType = TransportType.REST_HTTP,
        protocol: str = "HTTP",
    ) -> OfferedService:
        """Registers a service that is reached at `uri` and keeps it alive until the application leaves.

        `category` is an entry of a catalogue, or just its id. `liveness_s` is the interval to propose for heartbeats,
        0 leaves it to the platform; with None none are sent, and a lost registration goes unnoticed.
        """
        offer = ServiceOffer(
            name=name,
            uri=uri,
            version=version,
            category=_category(category) if isinstance(category, str) else category,
            serializer=serializer,
            transport_type=transport_type,
            protocol=protocol,
            liveness_s=liveness_s,
        )
        app_instance_id = self._app_instance_id
        service = OfferedService(offer, app_instance_id, await self._mp1.register_service(app_instance_id, offer))
        self._services.append(service)
        if service.liveness_interval_s is not None:
            self._tasks.start(f"heartbeats of {name}", self._keep_alive(service))
        return service

    async def describe_service(self, service: OfferedService, details: Mapping[str, int | str]) -> None:
        """Replaces the details of a service (its transport's implSpecificInfo): subscribers learn ATTRIBUTES_CHANGED.

        A service that the platform has forgotten gets them when it is registered again.
        """
        service._offer = replace(service._offer, details=details)
        async with self._restoring:
            try:
                await self._mp1.update_service(service._app_instance_id, service.service_id, service._offer)
            except NotRegistered:
                logger.debug("the platform has forgotten %s; its next heartbeat finds out", service._offer.name)

    async def discover(
        self, *, name: str | None = None, category: str | None = None, active_only: bool = True
    ) -> list[DiscoveredService]:
        """Services of that name and of that category (its id); of every application, this one included."""
        # The standard's filters exclude each other, so the platform gets the sharper one.
        found = await self._mp1.find_services([name] if name else [], None if name else category)
        return [
            service
            for service in found
            if category in (None, service.category_id) and (service.state is ServiceState.ACTIVE or not active_only)
        ]

    def watch(self, *, name: str | None = None, category: str | None = None) -> Watch:
        """Changes of services of that name, or of that category (its id), or of all that are offered to this application.

            async for change in app.watch(name="weather"):
                ...

        It needs no address at which the platform reaches the application, and goes on over broken connections. With
        `async with app.watch(...) as changes` it begins at once, so that nothing is missed between it and `discover`.

        Raises:
            ValueError: the standard takes a name or a category, not both.
        """
        if name is not None and category is not None:
            raise ValueError("watch a name or a category; the standard's filters exclude each other")
        wanted = None if category is None else _category(category)

        async def subscribe() -> WebSocketSubscription:
            return await self._mp1.subscribe_to_services(await self._stay_registered(), name, wanted)

        return Watch(self._stream(subscribe))

    async def on_termination(self, end: Callable[[OperationAction, int], Awaitable[None]]) -> None:
        """Has `end` called when an operator stops or terminates the instance gracefully.

        It gets what is to happen and the seconds that it may take. Once it has returned the platform is told, withdraws what
        the application offers and goes on; heartbeats end. If it fails, the platform waits until the time is over.
        """

        async def subscribe() -> WebSocketSubscription:
            return await self._mp1.subscribe_to_termination(await self._stay_registered())

        stream = self._stream(subscribe)
        await stream.open()
        self._tasks.start("termination", self._await_termination(stream, end))

    async def until_ended(self) -> None:
        """Returns once the platform has been told that `end` of `on_termination` is over: there is nothing more to do."""
        await self._ended.wait()

    async def _await_termination(
        self, stream: NotificationStream, end: Callable[[OperationAction, int], Awaitable[None]]
    ) -> None:
        message = await stream.next()
        if message is None:
            return
        notice = msgspec.json.decode(message, type=_TerminationNotice)
        logger.info(
            "the platform asks for the end: %s within %d s", notice.operation_action, notice.max_graceful_timeout
        )
        await end(notice.operation_action, notice.max_graceful_timeout)
        try:
            await self._mp1.confirm_termination(self._app_instance_id, notice.operation_action)
        finally:
            self._ended.set()

    def _stream(self, subscribe: Subscribe) -> NotificationStream:
        stream = NotificationStream(self._session, self._mp1, subscribe, self._sleep)
        self._streams.append(stream)
        return stream

    async def _stay_registered(self) -> str:
        """The id of this instance, registered anew where the platform has forgotten it."""
        async with self._restoring:
            if not await self._mp1.is_registered(self._app_instance_id):
                await self._register()
        return self._app_instance_id

    async def _register(self) -> None:
        self._app_instance_id = self._given_id or await self._mp1.register_app(self._name)
        await self._mp1.confirm_ready(self._app_instance_id)

    async def _leave(self) -> None:
        if self._given_id is None:
            await self._mp1.deregister_app(self._app_instance_id)
        elif not self._ended.is_set():  # an end has withdrawn them
            for service in self._services:
                await self._mp1.withdraw_service(self._app_instance_id, service.service_id)

    async def _keep_alive(self, service: OfferedService) -> None:
        answering = True
        while service.liveness_interval_s is not None:
            await self._sleep(service.liveness_interval_s / HEARTBEATS_PER_INTERVAL)
            if self._ended.is_set():
                return
            try:
                await self._send_heartbeat(service)
            except MecError as error:
                if answering:
                    logger.warning("heartbeat of %s failed, trying on: %s", service._offer.name, error)
                answering = False
            else:
                if not answering:
                    logger.info("the platform hears the heartbeats of %s again", service._offer.name)
                answering = True

    async def _send_heartbeat(self, service: OfferedService) -> None:
        registration = service._registration
        assert registration.liveness_uri is not None
        try:
            await self._mp1.send_heartbeat(registration.liveness_uri)
        except NotRegistered:
            async with self._restoring:
                # Another service's heartbeat may have restored this one meanwhile.
                if service._registration is registration:
                    await self._restore(service)

    async def _restore(self, forgotten: OfferedService) -> None:
        """Registers again what the platform does not know any more; whatever fails is found by a later heartbeat."""
        if not await self._mp1.is_registered(self._app_instance_id):
            await self._register()
        for service in self._services:
            if service is forgotten or service._app_instance_id != self._app_instance_id:
                service._registration = await self._mp1.register_service(self._app_instance_id, service._offer)
                service._app_instance_id = self._app_instance_id
                logger.info("the platform had forgotten service %s; it is registered again", service._offer.name)


def _category(category_id: str) -> CategoryRef:
    return CategoryRef(href=f"urn:mec:category:{quote(category_id)}", id=category_id, name=category_id, version="1")
