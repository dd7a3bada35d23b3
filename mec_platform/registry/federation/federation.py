"""A host among its peers: what it shares, and its links to each of them, with one life."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from random import Random

from mec_platform.domain.errors import MendableError
from mec_platform.registry import events
from mec_platform.registry.federation.peer_link import PeerLink
from mec_platform.registry.federation.peers import FederationSettings, PeerAccess, PeerStatus
from mec_platform.registry.federation.sharing import Sharing
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Decide
from mec_platform.registry.state import RegistryState

logger = logging.getLogger(__name__)


class PeerError(MendableError):
    """Peers that cannot be; the message says what to do."""


class Federation:
    """Every host of a federation names all the others. `peers` says how to reach each, by its name.

    Raises:
        PeerError: the host itself is among them, or one has no name.
    """

    def __init__(
        self, host: HostRegistry, peers: Mapping[str, PeerAccess], settings: FederationSettings, die: Random
    ) -> None:
        own = host.services.locality.mec_host
        if own in peers or "" in peers:
            raise PeerError(
                f"this host is {own!r} and its peers are others, each with a name; see --peer and --host-name"
            )
        self._registry = host.registry
        self.sharing = Sharing(host, peers)
        self._links = [PeerLink(host, name, access, settings, die) for name, access in peers.items()]

    async def start(self) -> None:
        """Begins to follow the peers, and forgets what came from hosts that are peers no more. Raises LogUnavailable."""
        names = {link.name for link in self._links}
        for name in [each for each in self._registry.state.peers if each not in names]:
            await self._registry.commit(_forgetting(name))
            logger.warning("host %s is a peer no more: its services are removed", name)
        if self._links:
            await self._registry.commit(_founding(self._registry.new_id()))
        for link in self._links:
            link.start()

    async def stop(self) -> None:
        """Ends that; the copies stay."""
        for link in self._links:
            await link.stop()

    @property
    def statuses(self) -> tuple[PeerStatus, ...]:
        """How each link stands."""
        followers = self.sharing.followers
        return tuple(link.status(follows=link.name in followers) for link in self._links)


def _founding(registry_id: str) -> Decide:
    def decide(state: RegistryState) -> events.Event | None:
        return None if state.registry_id else events.RegistryFounded(registry_id)

    return decide


def _forgetting(peer: str) -> Decide:
    def decide(state: RegistryState) -> events.Event | None:
        return events.PeerForgotten(peer) if peer in state.peers else None

    return decide
