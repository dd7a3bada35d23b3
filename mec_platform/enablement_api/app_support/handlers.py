"""The application support API `/mec_app_support/v2` (ETSI GS MEC 011 clause 7.2): registrations, readiness, time.

Each handler parses, makes one call to the registry, and serialises.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from mec_platform.enablement_api.app_support import messages
from mec_platform.enablement_api.exchange import json_response, no_content, read_message, read_query, resource_uri
from mec_platform.registry.clock import Clock
from mec_platform.registry.service_registry import ServiceRegistry

ROOT = "/mec_app_support/v2"


class AppSupport:
    """Handlers over one registry and one clock."""

    def __init__(self, registry: ServiceRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """The resources of clause 7.2.2 that are offered."""
        registration = f"{ROOT}/registrations/{{app_instance_id}}"
        return [
            web.post(f"{ROOT}/registrations", self.register),
            web.get(registration, self.get_registration),
            web.delete(registration, self.deregister),
            web.post(f"{ROOT}/applications/{{app_instance_id}}/confirm_ready", self.confirm_ready),
            web.get(f"{ROOT}/timing/current_time", self.get_current_time),
        ]

    async def register(self, request: web.Request) -> web.Response:
        """POST a registration (clause 7.2.13.3.4)."""
        read_query(request)
        message = await read_message(request, messages.AppInfo)
        app = await self._registry.register_app(messages.to_description(message))
        location = resource_uri(request, f"{ROOT}/registrations/{app.app_instance_id}")
        return json_response(messages.from_app(app), HTTPStatus.CREATED, location)

    async def get_registration(self, request: web.Request) -> web.Response:
        """GET a registration (clause 7.2.14.3.1)."""
        read_query(request)
        return json_response(messages.from_app(self._registry.app(request.match_info["app_instance_id"])))

    async def deregister(self, request: web.Request) -> web.Response:
        """DELETE a registration, and with it the application's services (clause 7.2.14.3.5)."""
        read_query(request)
        await self._registry.remove_app(request.match_info["app_instance_id"])
        return no_content()

    async def confirm_ready(self, request: web.Request) -> web.Response:
        """POST that the application is up and running (clause 7.2.12.3.4)."""
        read_query(request)
        app = self._registry.app(request.match_info["app_instance_id"])
        await read_message(request, messages.AppReadyConfirmation)
        await self._registry.confirm_ready(app.app_instance_id)
        return no_content()

    async def get_current_time(self, request: web.Request) -> web.Response:
        """GET the platform's time (clause 7.2.6.3.1). Not traceable: the platform does not know its host's source."""
        read_query(request)
        seconds, nano_seconds = divmod(self._clock.unix_ns(), 10**9)
        return json_response(messages.CurrentTime(seconds, nano_seconds, messages.TimeSourceStatus.NONTRACEABLE))
