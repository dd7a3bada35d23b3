"""Services as data types of 3GPP show them; pure. `messages` says attribute by attribute what is shown.

The counterpart of `service_management.messages`, which shows the same records as MEC 011 does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.network_addresses import parse_domain_name
from mec_platform.domain.services import EndPoint, ServiceInfo, ServiceState, TransportInfo, TransportType
from mec_platform.enablement_api.registry_view.messages import (
    AefLocation,
    AefProfile,
    ApiServiceKpis,
    ApiStatus,
    ApiVersion,
    EasEndPoint,
    EasProfile,
    InterfaceDescription,
    ServiceApiDescription,
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the registry knows of a service: its record, who provides its application, and how it is doing."""

    service: ServiceInfo
    provider: str | None
    kpis: Kpis | None


def to_eas_profile(offer: Offer) -> EasProfile | None:
    """None where EndPoint cannot say how the service is reached."""
    service = offer.service
    end_pt = _eas_end_point(service.transport.endpoint)
    if end_pt is None:
        return None
    return EasProfile(
        eas_id=service.name,
        end_pt=end_pt,
        prov_id=offer.provider or None,
        flex_eas_type=service.category.id if service.category else None,
        eas_feats=list(_features(service.capabilities)) or None,
        avl_rep=service.liveness_interval_s,
        status=service.state,
    )


def to_service_api(offer: Offer) -> ServiceApiDescription:
    """Every service has a name at least, and so a description."""
    service = offer.service
    profile = _aef_profile(offer)
    return ServiceApiDescription(
        api_name=service.name,
        api_id=service.service_id,
        api_status=ApiStatus([service.app_instance_id] if service.state is ServiceState.ACTIVE else []),
        aef_profiles=[profile] if profile else None,
        description=service.transport.description,
        service_api_category=service.category.id if service.category else None,
    )


def _aef_profile(offer: Offer) -> AefProfile | None:
    service, kpis = offer.service, offer.kpis
    interfaces = list(_interfaces(service.transport.endpoint))
    if not interfaces:
        return None
    memory_bytes = None if kpis is None else kpis.free_memory_bytes
    pop = service.locality.nfvi_pop
    return AefProfile(
        aef_id=service.app_instance_id,
        versions=[ApiVersion(service.version)],
        protocol=_protocol(service.transport),
        data_format=service.serializer,
        security_methods=["OAUTH"] if service.transport.oauth2 else None,
        interface_descriptions=interfaces,
        aef_location=AefLocation(dc_id=pop) if pop else None,
        service_kpis=None if memory_bytes is None else ApiServiceKpis(aval_mem=f"{memory_bytes // 1000} KB"),
    )


def _features(capabilities: Capabilities | None) -> Iterator[str]:
    if capabilities is None:
        return
    layers = capabilities.layers
    named = {
        "model": capabilities.model,
        "layers": "" if layers is None else f"{layers.start}:{layers.stop}",
        "quantisation": capabilities.quantisation,
        "hardwareTarget": capabilities.hardware_target,
        "trustLevel": str(capabilities.trust_level),
        **{f"label.{name}": value for name, value in sorted(capabilities.labels.items())},
    }
    yield from (f"{name}={value}" for name, value in named.items() if value)


def _protocol(transport: TransportInfo) -> str | None:
    if transport.type is TransportType.WEBSOCKET:
        return "WEBSOCKET"
    match transport.protocol.casefold(), transport.version:
        case (("http" | "https"), "1.1"):
            return "HTTP_1_1"
        case (("http" | "https"), ("2" | "2.0")):
            return "HTTP_2"
        case "grpc", _:
            return "HTTP_2"
        case "mqtt", _:
            return "MQTT"
    return None


# Where a service is reached


def _eas_end_point(endpoint: EndPoint) -> EasEndPoint | None:
    if endpoint.uris:
        return EasEndPoint(uri=endpoint.uris[0])
    hosts = endpoint.fqdn or [each.host for each in endpoint.addresses or ()]
    if found := _all(_ipv4, hosts):
        return EasEndPoint(ipv4_addrs=found)
    if found := _all(_ipv6, hosts):
        return EasEndPoint(ipv6_addrs=found)
    if found := _all(_fqdn, hosts):
        return EasEndPoint(fqdn=found[0])
    return None


def _interfaces(endpoint: EndPoint) -> Iterator[InterfaceDescription]:
    for host, port in _hosts(endpoint):
        if address := _ipv4(host):
            yield InterfaceDescription(ipv4_addr=address, port=port)
        elif address := _ipv6(host):
            yield InterfaceDescription(ipv6_addr=address, port=port)
        elif name := _fqdn(host):
            yield InterfaceDescription(fqdn=name, port=port)


def _hosts(endpoint: EndPoint) -> Iterator[tuple[str, int | None]]:
    for address in endpoint.addresses or ():
        yield address.host, address.port
    for name in endpoint.fqdn or ():
        yield name, None
    for uri in endpoint.uris or ():
        yield from _in_uri(uri)


def _in_uri(uri: str) -> Iterator[tuple[str, int | None]]:
    """Host and port of a URI, where the text has them: it is whatever its application has sent."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return
    if host:
        yield host, port


def _all(parse: Callable[[str], str | None], hosts: Iterable[str]) -> list[str]:
    return [found for host in hosts if (found := parse(host))]


def _ipv4(host: str) -> str | None:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        return None


def _ipv6(host: str) -> str | None:
    """In the form of RFC 5952; none with a zone, which only one machine knows."""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return None
    return None if address.scope_id else str(address)


def _fqdn(host: str) -> str | None:
    """A name that is one anywhere: of several labels without underscores, the last one of letters (Fqdn of TS 29.571)."""
    try:
        labels = parse_domain_name(host).split(".")
    except ValueError:
        return None
    if len(labels) < 2 or "_" in host or len(labels[-1]) < 2 or not labels[-1].isalpha():
        return None
    return ".".join(labels)
