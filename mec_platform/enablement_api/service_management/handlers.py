"""The service management API `/mec_service_mgmt/v1` (ETSI GS MEC 011 clause 8.2): services, liveness, transports.

Each handler parses, makes one call to the registry, and serialises. Subscriptions are not offered yet.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceInfo, ServiceQuery
from mec_platform.enablement_api.exchange import (
    TimeStamp,
    base_uri,
    check_if_match,
    json_response,
    no_content,
    read_message,
    read_value,
    read_values,
)
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.enablement_api.security.callers import consumer_locality
from mec_platform.enablement_api.service_management import messages
from mec_platform.enablement_api.service_management.writing import ServiceWriter, service_tag
from mec_platform.registry.applications import Applications
from mec_platform.registry.service_registry import ServiceRegistry

ROOT = "/mec_service_mgmt/v1"

SER_INSTANCE_ID = QueryParameter("ser_instance_id", str, "Services of these ids.", repeated=True)
SER_NAME = QueryParameter("ser_name", str, "Services of these names.", repeated=True)
SER_CATEGORY_ID = QueryParameter("ser_category_id", str, "Services of this category.")
CONSUMED_LOCAL_ONLY = QueryParameter("consumed_local_only", bool, "Services that only local consumers may use, or not.")
IS_LOCAL = QueryParameter("is_local", bool, "Services that are local to the consumer, or not.")
SCOPE_OF_LOCALITY = QueryParameter("scope_of_locality", LocalityType, "Services that are local within this area.")

_IDENTITIES = (SER_INSTANCE_ID, SER_NAME, SER_CATEGORY_ID)
_FILTERS = (*_IDENTITIES, CONSUMED_LOCAL_ONLY, IS_LOCAL, SCOPE_OF_LOCALITY)

SERVICES_PATH = f"{ROOT}/applications/{{appInstanceId}}/services"
_SERVICE = f"{SERVICES_PATH}/{{serviceId}}"
_ROW = partial(Operation, tag="Service management", scope=Scope.SERVICE_MANAGEMENT)


class ServiceManagement:
    """Handlers over one registry."""

    def __init__(self, applications: Applications, services: ServiceRegistry) -> None:
        self._applications = applications
        self._services = services
        self._writer = ServiceWriter(SERVICES_PATH)

    def operations(self) -> list[Operation]:
        """The resources of clause 8.2.2."""
        return [*self._of_every_application(), *self._of_one_application(), *self._of_liveness()]

    def _of_every_application(self) -> list[Operation]:
        return [
            _ROW(
                method="GET",
                path=f"{ROOT}/services",
                operation_id="listServices",
                summary="Find services",
                handler=self.list_services,
                query=_FILTERS,
                answers={HTTPStatus.OK: list[messages.ServiceInfoMessage]},
            ),
            _ROW(
                method="GET",
                path=f"{ROOT}/services/{{serviceId}}",
                operation_id="getService",
                summary="Read a service",
                handler=self.get_service,
                answers={HTTPStatus.OK: messages.ServiceInfoMessage},
                etag=True,
            ),
            _ROW(
                method="GET",
                path=f"{ROOT}/transports",
                operation_id="listTransports",
                summary="List the transports that the platform provides",
                handler=self.list_transports,
                answers={HTTPStatus.OK: list[messages.TransportInfoMessage]},
            ),
        ]

    def _of_one_application(self) -> list[Operation]:
        return [
            _ROW(
                method="GET",
                path=SERVICES_PATH,
                operation_id="listServicesOfApplication",
                summary="Find services of an application instance",
                handler=self.list_services,
                query=_FILTERS,
                answers={HTTPStatus.OK: list[messages.ServiceInfoMessage]},
            ),
            _ROW(
                method="POST",
                path=SERVICES_PATH,
                operation_id="createService",
                summary="Offer a service",
                handler=self.create_service,
                body=messages.ServiceInfoPost,
                answers={HTTPStatus.CREATED: messages.ServiceInfoMessage},
                etag=True,
            ),
            _ROW(
                method="GET",
                path=_SERVICE,
                operation_id="getServiceOfApplication",
                summary="Read a service of an application instance",
                handler=self.get_service,
                answers={HTTPStatus.OK: messages.ServiceInfoMessage},
                etag=True,
            ),
            _ROW(
                method="PUT",
                path=_SERVICE,
                operation_id="replaceService",
                summary="Describe a service anew",
                handler=self.replace_service,
                body=messages.ServiceInfoPut,
                answers={HTTPStatus.OK: messages.ServiceInfoMessage},
                etag=True,
            ),
            _ROW(
                method="DELETE",
                path=_SERVICE,
                operation_id="deleteService",
                summary="Withdraw a service",
                handler=self.delete_service,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
        ]

    def _of_liveness(self) -> list[Operation]:
        return [
            _ROW(
                method="GET",
                path=f"{_SERVICE}/liveness",
                operation_id="getLiveness",
                summary="Read what is known of a service's heartbeats",
                handler=self.get_liveness,
                answers={HTTPStatus.OK: messages.ServiceLivenessInfo},
            ),
            _ROW(
                method="PATCH",
                path=f"{_SERVICE}/liveness",
                operation_id="sendHeartbeat",
                summary="Send a heartbeat",
                handler=self.send_heartbeat,
                body=messages.ServiceLivenessUpdate,
                answers={HTTPStatus.NO_CONTENT: None},
            ),
        ]

    async def list_services(self, request: web.Request) -> web.Response:
        """GET services, of one application where the path names one (clauses 8.2.3.3.1 and 8.2.6.3.1)."""
        consumer, base = self._consumer(request), base_uri(request)
        app_instance_id = request.match_info.get("appInstanceId")
        found = self._services.services(parse_service_query(request), app_instance_id, consumer)
        return json_response([self._writer.write(each, each.is_local_to(consumer), base).json for each in found])

    async def create_service(self, request: web.Request) -> web.Response:
        """POST a new service (clause 8.2.6.3.4)."""
        # Before the body is looked at: for an unknown application nothing that could be sent would be right.
        app = self._applications.get(request.match_info["appInstanceId"])
        message = await read_message(request, messages.ServiceInfoPost)
        description = messages.to_description(message, self._services.transport)
        service = await self._services.register_service(app.app_instance_id, description)
        return self._answer(request, service, HTTPStatus.CREATED, f"{base_uri(request)}{self._writer.path(service)}")

    async def get_service(self, request: web.Request) -> web.Response:
        """GET one service (clauses 8.2.4.3.1 and 8.2.7.3.1)."""
        ids = request.match_info
        service = self._services.service(ids["serviceId"], ids.get("appInstanceId"))
        return self._answer(request, service)

    async def replace_service(self, request: web.Request) -> web.Response:
        """PUT a service (clause 8.2.7.3.2)."""
        ids = request.match_info
        self._services.service(ids["serviceId"], ids["appInstanceId"])
        message = await read_message(request, messages.ServiceInfoPut)
        description = messages.to_description(message, self._services.transport)

        def check(before: ServiceInfo) -> None:
            check_if_match(request, service_tag(before))

        service = await self._services.update_service(ids["appInstanceId"], ids["serviceId"], description, check)
        return self._answer(request, service)

    async def delete_service(self, request: web.Request) -> web.Response:
        """DELETE a service (clause 8.2.7.3.5)."""
        await self._services.remove_service(request.match_info["appInstanceId"], request.match_info["serviceId"])
        return no_content()

    async def get_liveness(self, request: web.Request) -> web.Response:
        """GET what is known of a service's heartbeats (clause 8.2.10.3.1)."""
        liveness = self._services.liveness(request.match_info["appInstanceId"], request.match_info["serviceId"])
        seconds, nano_seconds = divmod(liveness.last_heartbeat_ns, 10**9)
        stamp = TimeStamp(seconds, nano_seconds)
        return json_response(messages.ServiceLivenessInfo(liveness.state, stamp, liveness.interval_s))

    async def send_heartbeat(self, request: web.Request) -> web.Response:
        """PATCH: a heartbeat (clause 8.2.10.3.3). 204, because the interval never changes on the way."""
        ids = request.match_info
        self._services.liveness(ids["appInstanceId"], ids["serviceId"])
        await read_message(request, messages.ServiceLivenessUpdate)
        await self._services.heartbeat(ids["appInstanceId"], ids["serviceId"])
        return no_content()

    async def list_transports(self, request: web.Request) -> web.Response:
        """GET the transports that the platform provides (clause 8.2.5.3.1)."""
        return json_response([messages.from_transport(transport) for transport in self._services.transports])

    def _answer(
        self,
        request: web.Request,
        service: ServiceInfo,
        status: HTTPStatus = HTTPStatus.OK,
        location: str | None = None,
    ) -> web.Response:
        written = self._writer.write(service, service.is_local_to(self._consumer(request)), base_uri(request))
        return json_response(written.json, status, location, written.etag)

    def _consumer(self, request: web.Request) -> Locality:
        app_instance_id = request.match_info.get("appInstanceId")
        if app_instance_id is not None:
            return self._applications.get(app_instance_id).locality
        return consumer_locality(request, self._services.state, self._services.locality)


def parse_service_query(request: web.Request) -> ServiceQuery:
    """The filters of clause 8.2.3.3.1.

    Raises:
        BadRequest: a value that a parameter does not take, or two identities at once.
    """
    identities = [each.name for each in _IDENTITIES if each.name in request.query]
    if len(identities) > 1:
        raise BadRequest(f"{' and '.join(identities)} exclude each other")
    return ServiceQuery(
        service_ids=frozenset(read_values(request, SER_INSTANCE_ID)),
        names=frozenset(read_values(request, SER_NAME)),
        category_ids=frozenset(read_values(request, SER_CATEGORY_ID)),
        scope_of_locality=read_value(request, SCOPE_OF_LOCALITY),
        consumed_local_only=read_value(request, CONSUMED_LOCAL_ONLY),
        is_local=read_value(request, IS_LOCAL),
    )
