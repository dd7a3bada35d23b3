"""The registry to be read, `/registry/v1`: every service in full, as an EASProfile, and as a ServiceAPIDescription.

The platform's own resources: neither EDGEAPP's nor CAPIF's APIs are offered, their data types are. Who may read what is as
in `service_management`: a consumer learns of what is offered at its place.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo, ServiceQuery
from mec_platform.enablement_api.exchange import entity_tag, json_response, read_values
from mec_platform.enablement_api.operations import Operation
from mec_platform.enablement_api.registry_view.messages import EasProfile, ServiceApiDescription
from mec_platform.enablement_api.registry_view.projections import Offer, to_eas_profile, to_service_api
from mec_platform.enablement_api.registry_view.records import RegisteredService, to_record
from mec_platform.enablement_api.registry_watch.handlers import CATEGORY_ID, MODEL, STATE
from mec_platform.enablement_api.security.callers import consumer_locality
from mec_platform.enablement_api.service_management.handlers import SER_NAME
from mec_platform.registry.service_registry import ServiceRegistry

ROOT = "/registry/v1"

FILTERS = (SER_NAME, CATEGORY_ID, MODEL, STATE)
"""As the watch over services has them."""

_ROW = partial(Operation, method="GET", tag="Service registry", scope=Scope.SERVICE_MANAGEMENT)


class RegistryView:
    """Handlers over one registry."""

    def __init__(self, services: ServiceRegistry) -> None:
        self._services = services

    def operations(self) -> list[Operation]:
        """Each view as a list, and of one service."""
        return [
            *_view("services", "Service", "services in full", RegisteredService, self.list_services, self.get_service),
            *_view(
                "eas_profiles",
                "EasProfile",
                "services as EASProfile (TS 29.558)",
                EasProfile,
                self.list_eas_profiles,
                self.get_eas_profile,
            ),
            *_view(
                "service_apis",
                "ServiceApi",
                "services as ServiceAPIDescription (TS 29.222)",
                ServiceApiDescription,
                self.list_service_apis,
                self.get_service_api,
            ),
        ]

    async def list_services(self, request: web.Request) -> web.Response:
        """GET services in full, with capabilities and KPIs."""
        consumer = self._consumer(request)
        return json_response([self._record(each, consumer) for each in self._found(request, consumer)])

    async def get_service(self, request: web.Request) -> web.Response:
        """GET a service in full."""
        consumer = self._consumer(request)
        return _tagged(self._record(self._one(request, consumer), consumer))

    async def list_eas_profiles(self, request: web.Request) -> web.Response:
        """GET the services that can be shown as EASProfile."""
        shown = (to_eas_profile(self._offer(each)) for each in self._found(request, self._consumer(request)))
        return json_response([each for each in shown if each is not None])

    async def get_eas_profile(self, request: web.Request) -> web.Response:
        """GET a service as EASProfile; 404 where its EndPoint cannot say how it is reached."""
        profile = to_eas_profile(self._offer(self._one(request, self._consumer(request))))
        if profile is None:
            raise web.HTTPNotFound
        return _tagged(profile)

    async def list_service_apis(self, request: web.Request) -> web.Response:
        """GET services as ServiceAPIDescription."""
        found = self._found(request, self._consumer(request))
        return json_response([to_service_api(self._offer(each)) for each in found])

    async def get_service_api(self, request: web.Request) -> web.Response:
        """GET a service as ServiceAPIDescription."""
        return _tagged(to_service_api(self._offer(self._one(request, self._consumer(request)))))

    def _consumer(self, request: web.Request) -> Locality:
        return consumer_locality(request, self._services.state, self._services.locality)

    def _found(self, request: web.Request, consumer: Locality) -> list[ServiceInfo]:
        return self._services.services(parse_query(request), consumer=consumer)

    def _one(self, request: web.Request, consumer: Locality) -> ServiceInfo:
        return self._services.service(request.match_info["serviceId"], consumer=consumer)

    def _offer(self, service: ServiceInfo) -> Offer:
        # Of another host's application nothing is known here but its id, which may be that of one of ours.
        provider = None if service.origin else self._services.state.apps[service.app_instance_id].provider
        return Offer(service, provider, self._services.kpis.get(service.service_id))

    def _record(self, service: ServiceInfo, consumer: Locality) -> RegisteredService:
        return to_record(self._offer(service), self._services.state.order[service.service_id], consumer)


def parse_query(request: web.Request) -> ServiceQuery:
    """The filters. Raises BadRequest where a parameter does not take a value."""
    return ServiceQuery(
        names=frozenset(read_values(request, SER_NAME)),
        category_ids=frozenset(read_values(request, CATEGORY_ID)),
        models=frozenset(read_values(request, MODEL)),
        states=frozenset(read_values(request, STATE)),
    )


def _view(path: str, name: str, what: str, message: Any, list_all: Any, get_one: Any) -> list[Operation]:
    return [
        _ROW(
            path=f"{ROOT}/{path}",
            operation_id=f"listRegistered{name}s",
            summary=f"Find {what}",
            handler=list_all,
            query=FILTERS,
            answers={HTTPStatus.OK: list[message]},
        ),
        _ROW(
            path=f"{ROOT}/{path}/{{serviceId}}",
            operation_id=f"getRegistered{name}",
            summary=f"Read one of the {what}",
            handler=get_one,
            answers={HTTPStatus.OK: message},
            etag=True,
        ),
    ]


def _tagged(message: Any) -> web.Response:
    return json_response(message, etag=entity_tag(message))
