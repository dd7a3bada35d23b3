"""Which services are looked at at all: those that the sharpest index gives and the consumer may learn of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.query import DiscoveryQuery
from mec_platform.registry.state import RegistryState


def narrow(state: RegistryState, query: DiscoveryQuery) -> Iterator[ServiceInfo]:
    """Services among which all are that meet the query, each once.

    Whatever `consumedLocalOnly` keeps from the consumer (ETSI GS MEC 011 clause 8.1.2.2) is not among them, so nothing that is
    said of the rest, not even a count, tells of it.
    """
    wanted = {
        "name": query.names,
        "category": query.category_ids,
        "model": frozenset({query.model}) if query.model else frozenset(),
        "target": query.hardware_targets,
    }
    found = [[state.services_with((kind, value)) for value in values] for kind, values in wanted.items() if values]
    choices: list[tuple[int, Iterable[Iterable[str]]]] = [(sum(map(len, indexes)), indexes) for indexes in found]
    choices.append((len(state.services), (state.services,)))
    if query.service_ids:
        choices.append((len(query.service_ids), (query.service_ids,)))
    _, ids_by_value = min(choices, key=lambda choice: choice[0])
    return offered(state, (service_id for ids in ids_by_value for service_id in ids), query.consumer)


def offered(state: RegistryState, service_ids: Iterable[str], consumer: Locality) -> Iterator[ServiceInfo]:
    """Those of the services that exist and that a consumer at that place may learn of."""
    for service_id in service_ids:
        service = state.services.get(service_id)
        if service is not None and service.is_offered_at(consumer):
            yield service
