"""A service's record in full, as the platform's own JSON: what MEC 011 has, and what it has no attribute for."""

from __future__ import annotations

import msgspec

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import SerializerType, ServiceState
from mec_platform.enablement_api.endpoints import CategoryRefMessage, LocalityMessage, from_category, from_locality
from mec_platform.enablement_api.exchange import TimeStamp
from mec_platform.enablement_api.registry_view.projections import Offer
from mec_platform.enablement_api.registry_watch.messages import CapabilitiesMessage, from_capabilities
from mec_platform.enablement_api.service_management.messages import TransportInfoMessage, from_transport


class RecordKpis(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How a service was doing when it measured; absent what was not measured."""

    measured: TimeStamp
    load: float | None = None
    capacity: float | None = None
    free_memory_bytes: int | None = None
    tokens_per_s: float | None = None
    rtt_ms: float | None = None
    radio_quality_db: float | None = None


class RegisteredService(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service as the registry keeps it, but for its idempotency key. `isLocal` is as the consumer sees it; `origin` is the
    host that shares the service with this one, absent where it is this host's own."""

    service_id: str
    app_instance_id: str
    app_provider: str | None = None
    registered_revision: int
    name: str
    version: str
    state: ServiceState
    category: CategoryRefMessage | None = None
    transport: TransportInfoMessage
    serializer: SerializerType
    locality: LocalityMessage
    scope_of_locality: LocalityType
    consumed_local_only: bool
    is_local: bool
    liveness_interval: int | None = None
    evict_after_intervals: int | None = None
    capabilities: CapabilitiesMessage | None = None
    kpis: RecordKpis | None = None
    origin: str = ""


def to_record(offer: Offer, registered_revision: int, consumer: Locality) -> RegisteredService:
    """A record as a consumer at that place sees it."""
    service = offer.service
    return RegisteredService(
        service_id=service.service_id,
        app_instance_id=service.app_instance_id,
        app_provider=offer.provider,
        registered_revision=registered_revision,
        name=service.name,
        version=service.version,
        state=service.state,
        category=from_category(service.category),
        transport=from_transport(service.transport),
        serializer=service.serializer,
        locality=from_locality(service.locality),
        scope_of_locality=service.scope_of_locality,
        consumed_local_only=service.consumed_local_only,
        is_local=service.is_local_to(consumer),
        liveness_interval=service.liveness_interval_s,
        evict_after_intervals=service.evict_after_intervals,
        capabilities=None if service.capabilities is None else from_capabilities(service.capabilities),
        kpis=None if offer.kpis is None else _kpis(offer.kpis),
        origin=service.origin,
    )


def _kpis(kpis: Kpis) -> RecordKpis:
    seconds, nano_seconds = divmod(kpis.measured_unix_ns, 10**9)
    return RecordKpis(
        measured=TimeStamp(seconds, nano_seconds),
        load=kpis.load,
        capacity=kpis.capacity,
        free_memory_bytes=kpis.free_memory_bytes,
        tokens_per_s=kpis.tokens_per_s,
        rtt_ms=kpis.rtt_ms,
        radio_quality_db=kpis.radio_quality_db,
    )
