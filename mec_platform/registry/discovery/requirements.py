"""The hard requirements of a query as checks, cheapest first; only those that it has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mec_platform.domain.capabilities import Capabilities
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.query import DiscoveryQuery

SAYS_NOTHING = Capabilities()
"""Stands for the capabilities of a service that has none."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """`unmet` is how rejected services are counted; `found` is what one of them has instead."""

    unmet: str
    holds: Callable[[ServiceInfo], bool]
    found: Callable[[ServiceInfo], object]

    def reason(self, service: ServiceInfo) -> str:
        """Why this service does not meet it."""
        return f"{self.unmet}: {self.found(service) or 'says nothing'}"


def requirements_of(query: DiscoveryQuery) -> tuple[Requirement, ...]:
    """What a service has to meet before its KPIs are looked at."""
    return (*_of_the_description(query), *_of_the_capabilities(query))


def first_unmet(requirements: Iterable[Requirement], service: ServiceInfo) -> Requirement | None:
    """The first of them that the service does not meet."""
    for requirement in requirements:
        if not requirement.holds(service):
            return requirement
    return None


def capabilities_of(service: ServiceInfo) -> Capabilities:
    """What the service says it can do, if anything."""
    return service.capabilities or SAYS_NOTHING


def _of_the_description(query: DiscoveryQuery) -> Iterator[Requirement]:
    if query.states:
        wanted = " or ".join(sorted(query.states))
        yield Requirement(f"not {wanted}", lambda service: service.state in query.states, lambda service: service.state)
    if query.names:
        yield Requirement("of another name", lambda service: service.name in query.names, lambda service: service.name)
    if query.service_ids:
        yield Requirement(
            "of another id",
            lambda service: service.service_id in query.service_ids,
            lambda service: service.service_id,
        )
    if query.category_ids:
        yield Requirement(
            "of another category", lambda service: _category_id(service) in query.category_ids, _category_id
        )
    if query.scope_of_locality is not None:
        yield Requirement(
            f"of a scope of locality other than {query.scope_of_locality}",
            lambda service: service.scope_of_locality is query.scope_of_locality,
            lambda service: service.scope_of_locality,
        )
    if query.must_be_local:
        yield Requirement(
            "not local", lambda service: service.is_local_to(query.consumer), lambda service: service.locality.mec_host
        )


def _of_the_capabilities(query: DiscoveryQuery) -> Iterator[Requirement]:
    if query.model:
        yield Requirement(
            "of another model",
            lambda service: capabilities_of(service).model == query.model,
            lambda service: capabilities_of(service).model,
        )
    if query.trust_at_least:
        yield Requirement(
            f"trusted less than {query.trust_at_least}",
            lambda service: capabilities_of(service).trust_level >= query.trust_at_least,
            lambda service: str(capabilities_of(service).trust_level),
        )
    if query.quantisations:
        yield Requirement(
            "of another quantisation",
            lambda service: capabilities_of(service).quantisation in query.quantisations,
            lambda service: capabilities_of(service).quantisation,
        )
    if query.hardware_targets:
        yield Requirement(
            "of another hardware target",
            lambda service: capabilities_of(service).hardware_target in query.hardware_targets,
            lambda service: capabilities_of(service).hardware_target,
        )
    if (covers := query.covers) is not None:
        yield Requirement(
            f"without all blocks of {covers}", lambda service: _shared(service, covers) == covers, _layers
        )
    if (intersects := query.intersects) is not None:
        yield Requirement(
            f"without a block of {intersects}", lambda service: _shared(service, intersects) is not None, _layers
        )
    if query.labels:
        yield Requirement(
            "of other labels",
            lambda service: query.labels.items() <= capabilities_of(service).labels.items(),
            lambda service: ", ".join(f"{key}={value}" for key, value in capabilities_of(service).labels.items()),
        )


def _category_id(service: ServiceInfo) -> str:
    return service.category.id if service.category else ""


def _layers(service: ServiceInfo) -> LayerRange | None:
    return capabilities_of(service).layers


def _shared(service: ServiceInfo, blocks: LayerRange) -> LayerRange | None:
    layers = capabilities_of(service).layers
    return None if layers is None else layers.intersection(blocks)
