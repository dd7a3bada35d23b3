"""Where applications, services and consumers are, and which of them count as local to each other (MEC 011 clause 8.1.6.5).

`LocalityTree` says where a host lies; `mec_platform.locality_file` reads one from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mec_platform.domain.errors import MendableError


class LocalityType(StrEnum):
    """MEC 011 clause 8.1.6.5: the area within which a service counts as local."""

    MEC_SYSTEM = "MEC_SYSTEM"
    MEC_HOST = "MEC_HOST"
    NFVI_POP = "NFVI_POP"
    ZONE = "ZONE"
    ZONE_GROUP = "ZONE_GROUP"
    NFVI_NODE = "NFVI_NODE"

    def __init__(self, value: str) -> None:
        self.attribute = value.lower()
        """The attribute of `Locality` that names an area of this kind."""


WIDENING = (
    LocalityType.NFVI_NODE,
    LocalityType.MEC_HOST,
    LocalityType.NFVI_POP,
    LocalityType.ZONE,
    LocalityType.ZONE_GROUP,
    LocalityType.MEC_SYSTEM,
)
"""Kinds of areas, each one within one of the next; the standard names them without an order."""

_WORDS = {
    LocalityType.NFVI_NODE: "NFVI node",
    LocalityType.MEC_HOST: "MEC host",
    LocalityType.NFVI_POP: "NFVI PoP",
    LocalityType.ZONE: "zone",
    LocalityType.ZONE_GROUP: "zone group",
    LocalityType.MEC_SYSTEM: "MEC system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Where an application instance or a consumer is; an empty name is unknown, only the host is always known."""

    mec_host: str
    mec_system: str = ""
    nfvi_pop: str = ""
    zone: str = ""
    zone_group: str = ""
    nfvi_node: str = ""

    def shares(self, scope: LocalityType, other: Locality) -> bool:
        """Whether both are in the same area of kind `scope`.

        Where one of the two does not know its area, being together in the next narrower kind decides, down to the host:
        two that are in one zone are in one zone group too, whatever its name. A host that names no NFVI node is taken as
        one node.
        """
        mine, theirs = getattr(self, scope.attribute), getattr(other, scope.attribute)
        if mine and theirs:
            return bool(mine == theirs)
        if scope in (LocalityType.NFVI_NODE, LocalityType.MEC_HOST):
            return self.mec_host == other.mec_host
        return self.shares(WIDENING[WIDENING.index(scope) - 1], other)

    def steps_to(self, other: Locality) -> int:
        """How far apart both are: 0 in one NFVI node, 1 on one host, and so on to `len(WIDENING)`, where they share nothing."""
        shared = (steps for steps, scope in enumerate(WIDENING) if self.shares(scope, other))
        return next(shared, len(WIDENING))


class LocalityError(MendableError):
    """An area that cannot be in the tree, or a place that is not; the message names it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A named area and the one that it lies in, if any.

    Raises:
        LocalityError: the parent is of no wider kind; so no area ever lies within itself.
    """

    kind: LocalityType
    name: str
    parent: tuple[LocalityType, str] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise LocalityError(f"{_called(self.kind)} needs a name")
        if self.parent is not None and WIDENING.index(self.parent[0]) <= WIDENING.index(self.kind):
            parent = _called(*self.parent)
            raise LocalityError(f"{self} cannot lie in {parent}: only a wider kind of area holds it")

    def __str__(self) -> str:
        return _called(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class LocalityTree:
    """Every host and NFVI node of the deployment with the areas that they lie in. Build it with `grow`."""

    _places: Mapping[tuple[LocalityType, str], Locality] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def grow(areas: Iterable[Area]) -> LocalityTree:
        """The tree of these areas, given in any order.

        Raises:
            LocalityError: two areas of one kind share a name, a parent is not among them, or an NFVI node lies in no host.
        """
        known: dict[tuple[LocalityType, str], Area] = {}
        for area in areas:
            if (area.kind, area.name) in known:
                raise LocalityError(f"{area} is given twice")
            known[area.kind, area.name] = area
        for area in known.values():
            if area.parent is not None and area.parent not in known:
                raise LocalityError(f"{area} lies in {_called(*area.parent)}, which is not given")
        places = {
            key: _locality(area, known)
            for key, area in known.items()
            if area.kind in (LocalityType.MEC_HOST, LocalityType.NFVI_NODE)
        }
        return LocalityTree(MappingProxyType(places))

    def locality_of(self, *, mec_host: str | None = None, nfvi_node: str | None = None) -> Locality:
        """Where a host or an NFVI node is; where both are named, the node must be one of that host.

        Raises:
            LocalityError: the tree has no such place, or neither is named.
        """
        if nfvi_node is None:
            if mec_host is None:
                raise LocalityError("name a MEC host or an NFVI node")
            return self._find(LocalityType.MEC_HOST, mec_host)
        found = self._find(LocalityType.NFVI_NODE, nfvi_node)
        if mec_host not in (None, found.mec_host):
            raise LocalityError(f"NFVI node {nfvi_node!r} is one of MEC host {found.mec_host!r}, not of {mec_host!r}")
        return found

    def _find(self, kind: LocalityType, name: str) -> Locality:
        if (kind, name) not in self._places:
            known = ", ".join(sorted(each for each_kind, each in self._places if each_kind is kind)) or "none"
            raise LocalityError(f"there is no {_called(kind, name)}; known: {known}")
        return self._places[kind, name]


def _locality(area: Area, known: Mapping[tuple[LocalityType, str], Area]) -> Locality:
    names = {area.kind.attribute: area.name}
    above = area
    while above.parent is not None:
        above = known[above.parent]
        names[above.kind.attribute] = above.name
    if LocalityType.MEC_HOST.attribute not in names:
        raise LocalityError(f"{area} must lie in a MEC host")
    return Locality(**names)


def _called(kind: LocalityType, name: str | None = None) -> str:
    """How a message names an area: `zone group 'north'`."""
    return _WORDS[kind] if name is None else f"{_WORDS[kind]} {name!r}"
