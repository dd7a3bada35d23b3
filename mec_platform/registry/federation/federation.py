"""A host among its peers: what it shares, and its links to each of them, with one life.

Of replicas that share a registry each serves peers that follow the host, and the one that leads follows the peers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from random import Random

from mec_platform.background import BackgroundTasks
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
        self._host = host
        self._registry = host.registry
        self._peers = peers
        self._settings = settings
        self._die = die
        self.sharing = Sharing(host, peers)
        self._links = self._make_links()
        self._leadership_changed = asyncio.Event()
        self._tasks = BackgroundTasks()
        host.registry.leadership.add_listener(lambda leads: self._leadership_changed.set())

    async def start(self) -> None:
        """Begins to follow the peers, and forgets what came from hosts that are peers no more. Raises LogUnavailable."""
        for name in [each for each in self._registry.state.peers if each not in self._peers]:
            await self._registry.commit(_forgetting(name))
            logger.warning("host %s is a peer no more: its services are removed", name)
        if self._peers:
            await self._registry.commit(_founding(self._registry.new_id()))
            self._tasks.start("federation", self._follow_while_leading())

    async def stop(self) -> None:
        """Ends that; the copies stay."""
        await self._tasks.stop()
        await self._stop_links()

    async def _follow_while_leading(self) -> None:
        leadership, follows = self._registry.leadership, False
        while True:
            self._leadership_changed.clear()
            if leadership.is_leader and not follows:
                for link in self._links:
                    link.start()
            elif follows and not leadership.is_leader:
                await self._stop_links()
                self._links = self._make_links()
            follows = leadership.is_leader
            await self._leadership_changed.wait()

    async def _stop_links(self) -> None:
        for link in self._links:
            await link.stop()

    def _make_links(self) -> list[PeerLink]:
        return [PeerLink(self._host, name, access, self._settings, self._die) for name, access in self._peers.items()]

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
