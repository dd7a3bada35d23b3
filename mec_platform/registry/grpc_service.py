"""gRPC `ServiceRegistry`: discovery for clients that speak no REST; the same registry as Mp1."""

from __future__ import annotations

from mec_platform.domain.services import ServiceInfo, ServiceQuery
from mec_platform.registry.service_registry import ServiceRegistry
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import registry_pb2, registry_pb2_grpc


class ServiceRegistryService(registry_pb2_grpc.ServiceRegistryServicer):
    """The servicer."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry

    async def Discover(self, request: registry_pb2.DiscoverRequest, context: Context) -> registry_pb2.DiscoverReply:
        query = ServiceQuery(
            service_ids=frozenset(request.instance_ids),
            names=frozenset(request.names),
            category_ids=frozenset(request.category_ids),
            states=frozenset(request.states),
        )
        services = [_message(service) for service in self._registry.services(query)]
        return registry_pb2.DiscoverReply(revision=self._registry.state.revision, services=services)


def _message(service: ServiceInfo) -> registry_pb2.RegisteredService:
    transport = service.transport
    return registry_pb2.RegisteredService(
        instance_id=service.service_id,
        app_instance_id=service.app_instance_id,
        name=service.name,
        version=service.version,
        state=service.state.value,
        category_id="" if service.category is None else service.category.id,
        uris=transport.endpoint.uris or (),
        transport_type=transport.type.value,
    )
