"""Services with capabilities, as short as tests need them, and a registry's state that knows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    SerializerType,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.registry.events import AppRegistered, Occurrence, ServiceRegistered
from mec_platform.registry.state import RegistryState
from mec_platform.registry.transitions import apply_events

HERE = Locality(mec_host="host-1", zone="harbour", mec_system="city")
NEXT_DOOR = Locality(mec_host="host-2", zone="harbour", mec_system="city")
FAR = Locality(mec_host="host-9", zone="hills", mec_system="city")

TRANSPORT = TransportInfo(
    id="grpc",
    name="gRPC",
    type=TransportType.RPC,
    protocol="HTTP",
    version="2",
    endpoint=EndPoint(uris=("http://127.0.0.1:9000/",)),
)


def service(
    service_id: str,
    *,
    name: str = "inference",
    state: ServiceState = ServiceState.ACTIVE,
    locality: Locality = HERE,
    category: str = "",
    layers: tuple[int, int] | None = None,
    consumed_local_only: bool = False,
    **capabilities: Any,
) -> ServiceInfo:
    """A service; what is left over goes into its capabilities, of which it has none where nothing is."""
    if layers is not None:
        capabilities["layers"] = LayerRange(*layers)
    return ServiceInfo(
        service_id=service_id,
        app_instance_id="app-1",
        locality=locality,
        name=name,
        version="1.0",
        state=state,
        transport=TRANSPORT,
        serializer=SerializerType.PROTOBUF3,
        category=CategoryRef("http://catalogue", category, category, "1") if category else None,
        consumed_local_only=consumed_local_only,
        capabilities=Capabilities(**capabilities) if capabilities else None,
    )


def state_of(services: Iterable[ServiceInfo]) -> RegistryState:
    """What a registry knows after these services have been registered."""
    app = AppInstance(app_instance_id="app-1", name="inference", locality=HERE)
    events = [AppRegistered(app), *(ServiceRegistered(each) for each in services)]
    return apply_events(RegistryState(), [Occurrence(at, 7, event) for at, event in enumerate(events, start=1)])[0]
