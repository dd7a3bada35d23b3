"""Services of every kind of endpoint and transport, as the registry keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    HostPort,
    JsonText,
    OAuth2GrantType,
    OAuth2Info,
    SerializerType,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.enablement_api.registry_view.projections import Offer

TRANSPORT = TransportInfo(
    id="rest",
    name="REST",
    type=TransportType.REST_HTTP,
    protocol="HTTP",
    version="1.1",
    endpoint=EndPoint(uris=("https://faces.example.com:9000/faces/v1", "http://192.0.2.10/")),
    oauth2=OAuth2Info((OAuth2GrantType.CLIENT_CREDENTIALS,), "https://auth.example.com/token"),
    description="Faces in pictures",
)
SERVICE = ServiceInfo(
    service_id="service-1",
    app_instance_id="app-1",
    name="faces",
    version="v1",
    state=ServiceState.ACTIVE,
    transport=TRANSPORT,
    serializer=SerializerType.JSON,
    category=CategoryRef("urn:cat", "vision", "Computer vision", "1"),
    locality=Locality(mec_host="host-1", nfvi_pop="pop-1"),
    liveness_interval_s=30,
    evict_after_intervals=10,
    capabilities=Capabilities(
        model="smollm2",
        layers=LayerRange(0, 12),
        quantisation="int4",
        hardware_target="zen4",
        trust_level=1,
        labels={"rack": "a"},
    ),
)
KPIS = Kpis(measured_unix_ns=1_700_000_000_250_000_000, load=0.5, free_memory_bytes=2_000_500, tokens_per_s=42.5)
BARE = replace(
    SERVICE,
    state=ServiceState.SUSPENDED,
    category=None,
    liveness_interval_s=None,
    evict_after_intervals=None,
    capabilities=None,
    locality=Locality(mec_host="host-1"),
    transport=replace(TRANSPORT, oauth2=None, description=None, protocol="AMQP"),
)

ENDPOINTS = (
    EndPoint(uris=("http://192.0.2.10:9000/",)),
    EndPoint(uris=("grpc://[2001:db8::1]:50051",)),
    EndPoint(uris=("http://localhost:9000/", "not a URI", "http://[broken/", "http://host:port/")),
    EndPoint(uris=()),
    EndPoint(fqdn=("faces.example.com", "faces.example.org")),
    EndPoint(fqdn=("not a name",)),
    EndPoint(addresses=(HostPort("192.0.2.10", 80), HostPort("192.0.2.11", 81), HostPort("2001:DB8::1", 82))),
    EndPoint(addresses=(HostPort("2001:DB8::1", 80), HostPort("fe80::1%eth0", 80))),
    EndPoint(addresses=(HostPort("faces.example.com", 80),)),
    EndPoint(addresses=(HostPort("edge_1.example.com", 80), HostPort("edge-1", 80), HostPort("a.1", 80))),
    EndPoint(alternative=JsonText('{"topic": "faces"}')),
)


def offer(service: ServiceInfo = SERVICE, kpis: Kpis | None = KPIS, provider: str | None = "example.com") -> Offer:
    return Offer(service, provider, kpis)


def reached_at(endpoint: EndPoint, **transport: Any) -> Offer:
    """The service at another endpoint, in another way."""
    return offer(replace(SERVICE, transport=replace(TRANSPORT, endpoint=endpoint, **transport)))


def every_kind() -> list[Offer]:
    """Each endpoint, each type of transport, and services that say everything and nothing."""
    return [
        offer(),
        offer(BARE, None, None),
        *map(reached_at, ENDPOINTS),
        *(reached_at(TRANSPORT.endpoint, type=each) for each in TransportType),
    ]
