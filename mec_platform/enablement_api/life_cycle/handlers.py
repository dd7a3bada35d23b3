"""`/admin/v1/app_instances`: operators make application instances, see how they stand, end and remove them.

Each handler parses, makes one call to the registry, and serialises. Its counterpart for applications is `app_support`.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from mec_platform.domain.applications import AppInstance, AppState, OperationAction
from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.exchange import (
    json_response,
    no_content,
    read_message,
    read_value,
    read_values,
    resource_uri,
)
from mec_platform.enablement_api.life_cycle import messages
from mec_platform.enablement_api.life_cycle.instantiation import Instantiation
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.problem_details import Conflict
from mec_platform.registry.applications import Applications
from mec_platform.registry.state import RegistryState

ROOT = "/admin/v1"

_COLLECTION = f"{ROOT}/app_instances"
_INSTANCE = f"{_COLLECTION}/{{appInstanceId}}"
_ROW = partial(Operation, tag="Administration", scope=Scope.ADMIN)
_STATE = QueryParameter("operational_state", AppState, "Only instances in these states.", repeated=True)
_FORCE = QueryParameter("force", bool, "Remove an instance that is not terminated, too.")


class LifeCycle:
    """Handlers over the application instances of one platform."""

    def __init__(self, applications: Applications, instantiation: Instantiation) -> None:
        self._applications = applications
        self._instantiation = instantiation

    def operations(self) -> list[Operation]:
        """The collection, an instance, and what may be done to it."""
        return [*self._of_the_collection(), *self._of_an_instance(), *self._of_its_state()]

    def _of_the_collection(self) -> list[Operation]:
        return [
            _ROW(
                method="POST",
                path=_COLLECTION,
                operation_id="createAppInstance",
                summary="Make an application instance with its credentials and rules",
                handler=self.create,
                body=messages.AppInstanceRequest,
                answers={HTTPStatus.CREATED: messages.NewAppInstance},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
            _ROW(
                method="GET",
                path=_COLLECTION,
                operation_id="listAppInstances",
                summary="List the application instances",
                handler=self.list,
                query=(_STATE,),
                answers={HTTPStatus.OK: list[messages.AppInstanceInfo]},
            ),
        ]

    def _of_an_instance(self) -> list[Operation]:
        return [
            _ROW(
                method="GET",
                path=_INSTANCE,
                operation_id="getAppInstance",
                summary="Read how an application instance stands",
                handler=self.get,
                answers={HTTPStatus.OK: messages.AppInstanceInfo},
            ),
            _ROW(
                method="DELETE",
                path=_INSTANCE,
                operation_id="deleteAppInstance",
                summary="Remove a terminated application instance with everything of it",
                handler=self.delete,
                query=(_FORCE,),
                answers={HTTPStatus.NO_CONTENT: None},
                errors=frozenset({HTTPStatus.CONFLICT}),
            ),
        ]

    def _of_its_state(self) -> list[Operation]:
        row = partial(
            _ROW,
            method="POST",
            answers={HTTPStatus.ACCEPTED: messages.AppInstanceInfo},
            errors=frozenset({HTTPStatus.CONFLICT}),
        )
        return [
            row(
                path=f"{_INSTANCE}/terminate",
                operation_id="terminateAppInstance",
                summary="End an application instance for good",
                handler=self.terminate,
                body=messages.TerminateAppInstance,
            ),
            row(
                path=f"{_INSTANCE}/operate",
                operation_id="operateAppInstance",
                summary="Stop an application instance, or start it again",
                handler=self.operate,
                body=messages.OperateAppInstance,
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """POST an instance. Its secret is in this answer and in no other."""
        message = await read_message(request, messages.AppInstanceRequest)
        app, secret = await self._instantiation.create(message)
        credentials = None if secret is None else messages.InstanceCredentials(app.owner, secret)
        info = msgspec.structs.asdict(self._describe(app))
        location = resource_uri(request, f"{_COLLECTION}/{app.app_instance_id}")
        response = json_response(messages.NewAppInstance(**info, credentials=credentials), HTTPStatus.CREATED, location)
        response.headers["Cache-Control"] = "no-store"
        return response

    async def list(self, request: web.Request) -> web.Response:
        """GET all instances, oldest first."""
        states = read_values(request, _STATE)
        found = [app for app in self._applications.all() if not states or app.state in states]
        return json_response([self._describe(app) for app in found])

    async def get(self, request: web.Request) -> web.Response:
        """GET an instance."""
        return json_response(self._describe(self._applications.get(request.match_info["appInstanceId"])))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE an instance; a client that was made with it goes too."""
        app = self._applications.get(request.match_info["appInstanceId"])
        if app.state is not AppState.TERMINATED and not read_value(request, _FORCE):
            raise Conflict(f"application instance {app.app_instance_id!r} is {app.state}; terminate it first, or force")
        await self._applications.remove(app.app_instance_id)
        return no_content()

    async def terminate(self, request: web.Request) -> web.Response:
        """POST: with GRACEFUL the instance is asked first, and its services stay until it confirms or its time is over."""
        app = self._applications.get(request.match_info["appInstanceId"])
        message = await read_message(request, messages.TerminateAppInstance)
        return await self._end(app, OperationAction.TERMINATING, message.grace_s)

    async def operate(self, request: web.Request) -> web.Response:
        """POST: a stopped instance keeps its rules and subscriptions, and may be started again."""
        app = self._applications.get(request.match_info["appInstanceId"])
        message = await read_message(request, messages.OperateAppInstance)
        if message.change_state_to is messages.OperationalGoal.STOPPED:
            return await self._end(app, OperationAction.STOPPING, message.grace_s)
        await self._applications.start_again(app.app_instance_id)
        return self._accepted(self._applications.get(app.app_instance_id))

    async def _end(self, app: AppInstance, action: OperationAction, grace_s: int) -> web.Response:
        return self._accepted(await self._applications.request_end(app.app_instance_id, action, grace_s))

    def _accepted(self, app: AppInstance) -> web.Response:
        return json_response(self._describe(app), HTTPStatus.ACCEPTED)

    def _describe(self, app: AppInstance) -> messages.AppInstanceInfo:
        state: RegistryState = self._applications.state
        services = len(state.services_with(("app", app.app_instance_id)))
        subscriptions = len(state.subscriptions_of(app.app_instance_id))
        return messages.from_instance(app, services=services, subscriptions=subscriptions)
