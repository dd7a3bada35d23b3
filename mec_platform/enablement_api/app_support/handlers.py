"""The application support API `/mec_app_support/v2` (ETSI GS MEC 011 clause 7.2): registrations, readiness, graceful ends.

Each handler parses, makes one call to the registry, and serialises.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from aiohttp import web

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.app_support import messages
from mec_platform.enablement_api.exchange import json_response, no_content, read_message, resource_uri
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.security.callers import owner_of
from mec_platform.registry.applications import Applications

ROOT = "/mec_app_support/v2"


class AppSupport:
    """Handlers over the application instances."""

    def __init__(self, applications: Applications) -> None:
        self._applications = applications

    def operations(self) -> list[Operation]:
        """The resources of clause 7.2.2 that are offered."""
        row = partial(Operation, tag="Application support", scope=Scope.APP_SUPPORT)
        registration = f"{ROOT}/registrations/{{appInstanceId}}"
        return [
            row(
                method="POST",
                path=f"{ROOT}/registrations",
                operation_id="registerApplication",
                summary="Register an application instance",
                handler=self.register,
                body=messages.AppRegistration,
                answers={HTTPStatus.CREATED: messages.RegisteredAppInfo},
            ),
            row(
                method="GET",
                path=registration,
                operation_id="getRegistration",
                summary="Read a registration",
                handler=self.get_registration,
                answers={HTTPStatus.OK: messages.RegisteredAppInfo},
            ),
            row(
                method="PUT",
                path=registration,
                operation_id="replaceRegistration",
                summary="Describe an application instance anew",
                handler=self.replace_registration,
                body=messages.AppInfo,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
            row(
                method="DELETE",
                path=registration,
                operation_id="deregisterApplication",
                summary="Deregister an application instance, and remove its services",
                handler=self.deregister,
                answers={HTTPStatus.NO_CONTENT: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
            row(
                method="POST",
                path=f"{ROOT}/applications/{{appInstanceId}}/confirm_ready",
                operation_id="confirmReady",
                summary="Confirm that an application instance is up and running",
                handler=self.confirm_ready,
                body=messages.AppReadyConfirmation,
                answers={HTTPStatus.NO_CONTENT: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
            row(
                method="POST",
                path=f"{ROOT}/applications/{{appInstanceId}}/confirm_termination",
                operation_id="confirmTermination",
                summary="Confirm that an application instance has done what it had to before its end",
                handler=self.confirm_termination,
                body=messages.AppTerminationConfirmation,
                answers={HTTPStatus.NO_CONTENT: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
        ]

    async def register(self, request: web.Request) -> web.Response:
        """POST a registration (clause 7.2.13.3.4)."""
        message = await read_message(request, messages.AppRegistration)
        app = await self._register(message, owner_of(request))
        location = resource_uri(request, f"{ROOT}/registrations/{app.app_instance_id}")
        return json_response(messages.from_app(app), HTTPStatus.CREATED, location)

    async def get_registration(self, request: web.Request) -> web.Response:
        """GET a registration (clause 7.2.14.3.1)."""
        return json_response(messages.from_app(self._applications.get(request.match_info["appInstanceId"])))

    async def _register(self, message: messages.AppRegistration, owner: str) -> AppInstance:
        """An instance that an operator has made for this client describes itself; any other is new.

        Whether an id that the client gives is another's is not told: it is not taken.
        """
        description = messages.to_description(message)
        known = self._applications.find(message.app_instance_id) if message.is_ins_by_mec else None
        if known is None or known.owner != owner:
            return await self._applications.register(description, owner=owner)
        await self._applications.describe(known.app_instance_id, description)
        return self._applications.get(known.app_instance_id)

    async def replace_registration(self, request: web.Request) -> web.Response:
        """PUT a registration (clause 7.2.14.3.2); its id stays, whatever the body says."""
        app = self._applications.get(request.match_info["appInstanceId"])
        message = await read_message(request, messages.AppInfo)
        await self._applications.describe(app.app_instance_id, messages.to_description(message))
        return no_content()

    async def deregister(self, request: web.Request) -> web.Response:
        """DELETE a registration, and with it the application's services (clause 7.2.14.3.5)."""
        await self._applications.remove(request.match_info["appInstanceId"])
        return no_content()

    async def confirm_ready(self, request: web.Request) -> web.Response:
        """POST that the application is up and running (clause 7.2.12.3.4)."""
        app = self._applications.get(request.match_info["appInstanceId"])
        await read_message(request, messages.AppReadyConfirmation)
        await self._applications.confirm_ready(app.app_instance_id)
        return no_content()

    async def confirm_termination(self, request: web.Request) -> web.Response:
        """POST that the application may be stopped or terminated (clause 7.2.11.3.4); 204 also where nobody had asked."""
        app = self._applications.get(request.match_info["appInstanceId"])
        message = await read_message(request, messages.AppTerminationConfirmation)
        await self._applications.confirm_end(app.app_instance_id, message.operation_action)
        return no_content()
