"""Everything that the platform knows of one MEC host's applications: one registry, and the facades over it, with one life."""

from __future__ import annotations

from collections.abc import Sequence

from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import TransportInfo
from mec_platform.registry.applications import Applications
from mec_platform.registry.change_feed import ChangeFeed
from mec_platform.registry.client_subscriptions import ClientSubscriptions
from mec_platform.registry.credentials import Credentials
from mec_platform.registry.event_log import EventLog
from mec_platform.registry.expiries import Expiries
from mec_platform.registry.heartbeats import HeartbeatExchange
from mec_platform.registry.joining import Joining
from mec_platform.registry.mass_expiry import MassExpirySettings
from mec_platform.registry.registry import Registry
from mec_platform.registry.service_registry import ServiceRegistry
from mec_platform.registry.subscriptions import Subscriptions
from mec_platform.registry.terminations import Terminations


class HostRegistry:
    """For composition roots and tests; whoever uses a part of it takes that part."""

    def __init__(
        self,
        registry: Registry,
        *,
        locality: Locality,
        transports: Sequence[TransportInfo] = (),
        quotas: Quotas | None = None,
        mass_expiry: MassExpirySettings | None = None,
        exchange: HeartbeatExchange | None = None,
    ) -> None:
        self.registry = registry
        self.applications = Applications(registry, locality, quotas)
        self.services = ServiceRegistry(
            registry,
            locality=locality,
            transports=transports,
            quotas=quotas,
            mass_expiry=mass_expiry,
            exchange=exchange,
        )
        self.changes = ChangeFeed(registry, quotas)
        self.subscriptions = Subscriptions(registry, quotas)
        self.client_subscriptions = ClientSubscriptions(registry, quotas)
        self.credentials = Credentials(registry)
        self.joining = Joining(registry, self.credentials)
        self._terminations = Terminations(registry, self.applications)
        self._expiries = Expiries(registry, self.client_subscriptions)

    async def start(self) -> None:
        """Raises LogUnavailable or IllegalEvent, as `Registry.start`."""
        await self.registry.start()
        self.services.start()

    async def stop(self) -> None:
        """Takes no more changes; the log stays open."""
        await self.services.stop()
        await self.registry.stop()
        # Behind the registry, whose last changes may still name deadlines.
        await self._terminations.stop()
        await self._expiries.stop()

    @property
    def log(self) -> EventLog:
        """Where it is all kept."""
        return self.registry.log
