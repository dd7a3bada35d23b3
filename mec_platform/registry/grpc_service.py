"""gRPC `ServiceRegistry`: discovery for clients that speak no REST; the same registry as Mp1."""

from __future__ import annotations

from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.service_registry import ServiceRegistry
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import registry_pb2, registry_pb2_grpc


class ServiceRegistryService(registry_pb2_grpc.ServiceRegistryServicer):
    """The servicer."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry

    async def Discover(self, request: registry_pb2.DiscoverRequest, context: Context) -> registry_pb2.DiscoverReply:
        state = self._registry.state
        services = [_message(service) for service in state.services.values() if _matches(service, request)]
        return registry_pb2.DiscoverReply(revision=state.revision, services=services)


def _matches(service: ServiceInfo, request: registry_pb2.DiscoverRequest) -> bool:
    category = "" if service.category is None else service.category.id
    pairs = (
        (request.names, service.name),
        (request.instance_ids, service.service_id),
        (request.category_ids, category),
        (request.states, service.state.value),
    )
    return all(not wanted or value in wanted for wanted, value in pairs)


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
