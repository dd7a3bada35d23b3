"""Which link counts between two members: their own where it was measured, else the one between their sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mec_platform.domain.capacity import LinkCapacity, Snapshot


@dataclass(frozen=True, slots=True)
class LinkTable:
    """The links of a snapshot by their ends; built once, because snapshots hold links as a flat tuple."""

    own: Mapping[tuple[str, str], LinkCapacity]
    between_sites: Mapping[tuple[str, str], LinkCapacity]
    sites: Mapping[str, str]

    @classmethod
    def of(cls, snapshot: Snapshot) -> LinkTable:
        """The links of this snapshot."""
        return cls(
            own={(link.source, link.target): link for link in snapshot.links},
            between_sites={(link.source, link.target): link for link in snapshot.site_links},
            sites={node.name: node.site for node in snapshot.nodes}
            | {gateway.name: gateway.site for gateway in snapshot.gateways},
        )

    def link(self, source: str, target: str) -> LinkCapacity | None:
        """One direction between two members, or None where neither they nor their sites have measured it."""
        own = self.own.get((source, target))
        if own is not None:
            return own
        return self.between_sites.get((self.sites.get(source, ""), self.sites.get(target, "")))
