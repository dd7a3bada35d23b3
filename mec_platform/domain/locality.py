"""Where applications, services and consumers are, and which of them count as local to each other (MEC 011 clause 8.1.6.5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LocalityType(StrEnum):
    """MEC 011 clause 8.1.6.5: the area within which a service counts as local."""

    MEC_SYSTEM = "MEC_SYSTEM"
    MEC_HOST = "MEC_HOST"
    NFVI_POP = "NFVI_POP"
    ZONE = "ZONE"
    ZONE_GROUP = "ZONE_GROUP"
    NFVI_NODE = "NFVI_NODE"


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

        Where one of the two does not know its area, being on the same host decides: a host lies within one system,
        zone and point of presence, and a host that names no NFVI node is taken as one node.
        """
        attribute = scope.value.lower()
        mine, theirs = getattr(self, attribute), getattr(other, attribute)
        if mine and theirs:
            return bool(mine == theirs)
        return self.mec_host == other.mec_host
