"""The service management API `/mec_service_mgmt/v1` (ETSI GS MEC 011 clause 8.2): services, liveness, transports.

Each handler parses, makes one call to the registry, and serialises. Subscriptions are not offered yet.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import ServiceInfo, ServiceQuery
from mec_platform.enablement_api.exchange import json_response, no_content, read_message, read_query, resource_uri
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.enablement_api.service_management import messages
from mec_platform.registry.service_registry import ServiceRegistry

ROOT = "/mec_service_mgmt/v1"

_IDENTITY_FILTERS = ("ser_instance_id", "ser_name", "ser_category_id")
_BOOLEANS = {"true": True, "false": False}


class ServiceManagement:
    """Handlers over one registry."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry

    def routes(self) -> list[web.RouteDef]:
        """The resources of clause 8.2.2."""
        services = f"{ROOT}/applications/{{app_instance_id}}/services"
        service = f"{services}/{{service_id}}"
        return [
            web.get(f"{ROOT}/services", self.list_services),
            web.get(f"{ROOT}/services/{{service_id}}", self.get_service),
            web.get(f"{ROOT}/transports", self.list_transports),
            web.get(services, self.list_services),
            web.post(services, self.create_service),
            web.get(service, self.get_service),
            web.put(service, self.replace_service),
            web.delete(service, self.delete_service),
            web.get(f"{service}/liveness", self.get_liveness),
            web.patch(f"{service}/liveness", self.send_heartbeat),
        ]

    async def list_services(self, request: web.Request) -> web.Response:
        """GET services, of one application where the path names one (clauses 8.2.3.3.1 and 8.2.6.3.1)."""
        found = self._registry.services(parse_service_query(request), request.match_info.get("app_instance_id"))
        return json_response([self._message(request, service) for service in found])

    async def create_service(self, request: web.Request) -> web.Response:
        """POST a new service (clause 8.2.6.3.4)."""
        read_query(request)
        # Before the body is looked at: for an unknown application nothing that could be sent would be right.
        app = self._registry.app(request.match_info["app_instance_id"])
        message = await read_message(request, messages.ServiceInfoPost)
        description = messages.to_description(message, self._registry.transport)
        service = await self._registry.register_service(app.app_instance_id, description)
        location = _service_uri(request, service)
        return json_response(self._message(request, service), HTTPStatus.CREATED, location)

    async def get_service(self, request: web.Request) -> web.Response:
        """GET one service (clauses 8.2.4.3.1 and 8.2.7.3.1)."""
        read_query(request)
        ids = request.match_info
        service = self._registry.service(ids["service_id"], ids.get("app_instance_id"))
        return json_response(self._message(request, service))

    async def replace_service(self, request: web.Request) -> web.Response:
        """PUT a service (clause 8.2.7.3.2)."""
        read_query(request)
        ids = request.match_info
        self._registry.service(ids["service_id"], ids["app_instance_id"])
        message = await read_message(request, messages.ServiceInfoPut)
        description = messages.to_description(message, self._registry.transport)
        service = await self._registry.update_service(ids["app_instance_id"], ids["service_id"], description)
        return json_response(self._message(request, service))

    async def delete_service(self, request: web.Request) -> web.Response:
        """DELETE a service (clause 8.2.7.3.5)."""
        read_query(request)
        await self._registry.remove_service(request.match_info["app_instance_id"], request.match_info["service_id"])
        return no_content()

    async def get_liveness(self, request: web.Request) -> web.Response:
        """GET what is known of a service's heartbeats (clause 8.2.10.3.1)."""
        read_query(request)
        liveness = self._registry.liveness(request.match_info["app_instance_id"], request.match_info["service_id"])
        seconds, nano_seconds = divmod(liveness.last_heartbeat_ns, 10**9)
        stamp = messages.TimeStamp(seconds, nano_seconds)
        return json_response(messages.ServiceLivenessInfo(liveness.state, stamp, liveness.interval_s))

    async def send_heartbeat(self, request: web.Request) -> web.Response:
        """PATCH: a heartbeat (clause 8.2.10.3.3). 204, because the interval never changes on the way."""
        read_query(request)
        ids = request.match_info
        self._registry.liveness(ids["app_instance_id"], ids["service_id"])
        await read_message(request, messages.ServiceLivenessUpdate)
        await self._registry.heartbeat(ids["app_instance_id"], ids["service_id"])
        return no_content()

    async def list_transports(self, request: web.Request) -> web.Response:
        """GET the transports that the platform provides (clause 8.2.5.3.1)."""
        read_query(request)
        return json_response([messages.from_transport(transport) for transport in self._registry.transports])

    def _message(self, request: web.Request, service: ServiceInfo) -> messages.ServiceInfoMessage:
        self_uri = _service_uri(request, service)
        return messages.from_service(
            service,
            is_local=service.is_local_to(self._consumer(request)),
            self_uri=self_uri,
            liveness_uri=f"{self_uri}/liveness",
        )

    def _consumer(self, request: web.Request) -> Locality:
        app_instance_id = request.match_info.get("app_instance_id")
        return self._registry.locality if app_instance_id is None else self._registry.app(app_instance_id).locality


def parse_service_query(request: web.Request) -> ServiceQuery:
    """The filters of clause 8.2.3.3.1.

    Raises:
        BadRequest: an unknown parameter, a value that none of them takes, or two identities at once.
    """
    single = {"ser_category_id", "consumed_local_only", "is_local", "scope_of_locality"}
    read_query(request, single=single, repeated={"ser_instance_id", "ser_name"})
    identities = [name for name in _IDENTITY_FILTERS if name in request.query]
    if len(identities) > 1:
        raise BadRequest(f"{' and '.join(identities)} exclude each other")
    scope = request.query.get("scope_of_locality")
    if scope is not None and scope not in set(LocalityType):
        raise BadRequest(f"scope_of_locality must be one of {', '.join(LocalityType)}")
    return ServiceQuery(
        service_ids=frozenset(request.query.getall("ser_instance_id", [])),
        names=frozenset(request.query.getall("ser_name", [])),
        category_ids=frozenset(request.query.getall("ser_category_id", [])),
        scope_of_locality=None if scope is None else LocalityType(scope),
        consumed_local_only=_boolean(request, "consumed_local_only"),
        is_local=_boolean(request, "is_local"),
    )


def _boolean(request: web.Request, name: str) -> bool | None:
    text = request.query.get(name)
    if text is None:
        return None
    if text not in _BOOLEANS:
        raise BadRequest(f"{name} must be true or false")
    return _BOOLEANS[text]


def _service_uri(request: web.Request, service: ServiceInfo) -> str:
    return resource_uri(request, f"{ROOT}/applications/{service.app_instance_id}/services/{service.service_id}")
