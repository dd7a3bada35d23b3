"""How services are doing (`domain.capabilities.Kpis`): in memory, beside the records. Heartbeats bring them, nothing keeps them.

A listener of the registry, so that the KPIs of a service end with it. Consumers judge by `measured_unix_ns` what they are
worth. Nothing here is written to the log: after a restart the next heartbeats bring all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.effects import AnnounceService, Effect

AHEAD_NS = 60 * 10**9
"""A service's clock may be ahead of ours by so much. What claims to be newer would keep out all that follows."""


class KpiTable(Mapping[str, Kpis]):
    """The newest KPIs of each service, by its id. At most one entry for each service that `is_registered`."""

    def __init__(self, is_registered: Callable[[str], bool]) -> None:
        self._is_registered = is_registered
        self._kpis: dict[str, Kpis] = {}

    def __len__(self) -> int:
        return len(self._kpis)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kpis)

    def __getitem__(self, service_id: str) -> Kpis:
        return self._kpis[service_id]

    @property
    def newest(self) -> Mapping[str, Kpis]:
        """The same, for who asks for many: a view of now that changes as they come."""
        return self._kpis

    def update(self, service_id: str, kpis: Kpis, now_ns: int) -> bool:
        """Takes over what was measured; whether it did.

        It does not for a service that is not registered, nor what is older than what is there, or from the future.
        """
        known = self._kpis.get(service_id)
        if known is not None and known.measured_unix_ns > kpis.measured_unix_ns:
            return False
        if kpis.measured_unix_ns > now_ns + AHEAD_NS or not self._is_registered(service_id):
            return False
        self._kpis[service_id] = kpis
        return True

    def note(self, effect: Effect) -> None:
        """Forgets the KPIs of services that are gone."""
        if isinstance(effect, AnnounceService) and effect.change is ChangeType.REMOVED:
            self._kpis.pop(effect.service.service_id, None)
