"""The names that a condition may use, with their types and where their values come from. Pure.

All are scalars, so that an evaluation costs no more than the names that are used. Labels are read by constant keys
(`service.labels.zone`, `service.labels["a-b"]`) and become scalars as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from mec_platform.domain.capabilities import KPI_NAMES, Kpis
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceInfo
from mec_platform.registry.discovery.requirements import capabilities_of

Scalar: TypeAlias = bool | int | float | str

Read: TypeAlias = Callable[[ServiceInfo, Kpis | None, Locality], Scalar | None]
"""A name's value for a service, its KPIs if there are any, and the consumer's place; None where it is absent."""


class Kind(StrEnum):
    """CEL's types, as far as conditions have them."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"

    @property
    def is_number(self) -> bool:
        """Numbers of both kinds compare with each other; arithmetic takes two of one kind, as CEL has it."""
        return self in (Kind.INT, Kind.DOUBLE)


@dataclass(frozen=True, slots=True)
class Name:
    """A name of the environment; `optional` where a service may be without it, so that `has` may be asked."""

    path: str
    kind: Kind
    read: Read
    optional: bool = False

    @property
    def variable(self) -> str:
        """What it is called in the program that is evaluated."""
        return self.path.replace(".", "_")

    @property
    def presence(self) -> Name:
        """`has` of this name."""
        return Name(
            f"has.{self.path}", Kind.BOOL, lambda service, kpis, place: self.read(service, kpis, place) is not None
        )


def label(key: str, number: int) -> Name:
    """The value of a service's label; the number tells it from other labels of one condition."""
    return Name(
        f"label.{number}",
        Kind.STRING,
        lambda service, kpis, place: capabilities_of(service).labels.get(key),
        optional=True,
    )


def _kpi(attribute: str) -> Name:
    # Integers among the KPIs that are doubles would be ints in CEL, and its arithmetic does not mix the two.
    convert: Callable[[float], Scalar] = int if attribute == "free_memory_bytes" else float

    def read(service: ServiceInfo, kpis: Kpis | None, place: Locality) -> Scalar | None:
        value = getattr(kpis, attribute, None)
        return None if value is None else convert(value)

    return Name(f"kpi.{attribute}", Kind.INT if convert is int else Kind.DOUBLE, read, optional=True)


def _place(owner: str, attribute: str) -> Name:
    if owner == "consumer":
        return Name(f"consumer.{attribute}", Kind.STRING, lambda service, kpis, place: getattr(place, attribute))
    return Name(
        f"service.locality.{attribute}",
        Kind.STRING,
        lambda service, kpis, place: getattr(service.locality, attribute),
    )


def _text(attribute: str, read: Callable[[ServiceInfo], str]) -> Name:
    return Name(f"service.{attribute}", Kind.STRING, lambda service, kpis, place: read(service))


def _block(attribute: str) -> Name:
    def read(service: ServiceInfo, kpis: Kpis | None, place: Locality) -> Scalar | None:
        layers = capabilities_of(service).layers
        return None if layers is None else getattr(layers, attribute)

    return Name(f"service.layers.{attribute}", Kind.INT, read, optional=True)


_ALL = (
    _text("id", lambda service: service.service_id),
    _text("name", lambda service: service.name),
    _text("version", lambda service: service.version),
    _text("state", lambda service: service.state.value),
    _text("category", lambda service: service.category.id if service.category else ""),
    _text("model", lambda service: capabilities_of(service).model),
    _text("quantisation", lambda service: capabilities_of(service).quantisation),
    _text("hardware_target", lambda service: capabilities_of(service).hardware_target),
    _text("scope_of_locality", lambda service: service.scope_of_locality.value),
    Name("service.trust_level", Kind.INT, lambda service, kpis, place: capabilities_of(service).trust_level),
    Name("service.distance", Kind.INT, lambda service, kpis, place: service.locality.steps_to(place)),
    Name("service.is_local", Kind.BOOL, lambda service, kpis, place: service.is_local_to(place)),
    _block("start"),
    _block("stop"),
    *(_place("service", each.name) for each in fields(Locality)),
    *(_place("consumer", each.name) for each in fields(Locality)),
    *(_kpi(name) for name in KPI_NAMES),
)

NAMES: Mapping[str, Name] = MappingProxyType({name.path: name for name in _ALL})
"""Every name but those of labels, by its path."""

LABELS = "service.labels"

WHOLES: Mapping[str, Name] = MappingProxyType({"service.layers": NAMES["service.layers.start"]})
"""What `has` may be asked of although it is no scalar, by the name that is there whenever the whole is."""

ROOTS = frozenset(path.split(".")[0] for path in NAMES)


def names_under(prefix: str) -> str:
    """The names that exist, in words, as far as they begin with `prefix`; all of them where none does."""
    every = (*NAMES, f"{LABELS}.<key>")
    return ", ".join(sorted([path for path in every if path.startswith(f"{prefix}.")] or every))
