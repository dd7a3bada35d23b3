"""Services and their liveness (ETSI GS MEC 011 clauses 5.2.4 to 5.2.6 and 8.2): a thin shell over `registry`.

Its counterparts are `enablement_api` (Mp1) and the gRPC registry service. It knows neither HTTP nor gRPC. Questions are
answered from memory; heartbeats renew leases and are not written to the log. Replicas tell each other whose heartbeats
they got, and the one that leads suspends what is overdue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from mec_platform.domain.locality import Locality
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import (
    ServiceDescription,
    ServiceInfo,
    ServiceQuery,
    ServiceState,
    TransportInfo,
)
from mec_platform.registry import effects as to_do
from mec_platform.registry import events
from mec_platform.registry.applications import find_app
from mec_platform.registry.errors import (
    LivenessNotMonitored,
    UnknownService,
    UnknownTransport,
)
from mec_platform.registry.heartbeat_relay import HeartbeatRelay
from mec_platform.registry.heartbeats import HeartbeatExchange
from mec_platform.registry.kpis import KpiTable
from mec_platform.registry.leases import LeaseTable
from mec_platform.registry.liveness import LivenessWatch
from mec_platform.registry.mass_expiry import MassExpirySettings
from mec_platform.registry.registering import Registration, RegistrationUnderWay, described_anew
from mec_platform.registry.registry import Decide, Registry
from mec_platform.registry.state import RegistryState


@dataclass(frozen=True, slots=True)
class Liveness:
    """MEC 011 clause 8.1.2.4: what the platform knows of a service's heartbeats."""

    state: ServiceState
    interval_s: int
    last_heartbeat_ns: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """What came of many heartbeats: the shortest interval among the leases, None where there is none, and ids that no
    service has, whose applications have to register again."""

    shortest_interval_s: int | None
    unknown: tuple[str, ...]


class ServiceRegistry:
    """The services of one MEC host, over a registry that is started after this is made.

    `locality` is where a consumer is taken to be who does not say. Methods raise the errors of `errors`, each says which.
    """

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
        self._registry = registry
        self._quotas = quotas or Quotas()
        self._exchange = exchange
        self._heard: dict[str, int] = {}
        self.locality = locality
        self.transports = tuple(transports)
        self._clock = registry.clock
        self._leases = LeaseTable()
        self.watch = LivenessWatch(registry, self._leases, mass_expiry or MassExpirySettings())
        self.kpis = KpiTable(lambda service_id: service_id in registry.state.services)
        registry.add_listener(self._note)
        registry.add_listener(self.kpis.note)
        registry.leadership.add_listener(self._hear_of_leadership)
        self._relay = None if exchange is None else HeartbeatRelay(exchange, self._leases, self.kpis, registry.clock)

    def start(self) -> None:
        """Begins to watch heartbeats."""
        self.watch.start()
        if self._relay is not None:
            self._relay.start()

    async def stop(self) -> None:
        """Ends the watch over heartbeats."""
        await self.watch.stop()
        if self._relay is not None:
            await self._relay.stop()

    @property
    def state(self) -> RegistryState:
        """The registry's state as of now."""
        return self._registry.state

    # Services

    async def register_service(
        self, app_instance_id: str, description: ServiceDescription, key: str = ""
    ) -> ServiceInfo:
        """Registers a service under an id of the platform's making.

        With an idempotency key it is registered once, however often this is repeated while it exists: the same key of
        the same application instance gives the service as it is now, over restarts too.

        Raises:
            RegistrationKeyUsed: the key was used for another description.
            UnknownAppInstance: there is nobody to offer it.
            StateConflict: the application instance has ended.
            QuotaExceeded: it has as many services as an instance may have.
        """
        return await self.begin_registration(app_instance_id, description, key).service()

    def begin_registration(
        self, app_instance_id: str, description: ServiceDescription, key: str = ""
    ) -> RegistrationUnderWay:
        """As `register_service`, for who has many under way and needs no task for each. Raises LogUnavailable."""
        registration = Registration(app_instance_id, description, key, self._registry.new_id(), self._quotas)
        return RegistrationUnderWay(registration, self._registry.propose(registration.decide))

    async def update_service(
        self,
        app_instance_id: str,
        service_id: str,
        description: ServiceDescription,
        check: Callable[[ServiceInfo], None] = lambda before: None,
    ) -> ServiceInfo:
        """Replaces a service's description; what is None in it stays: interval, eviction, capabilities. Counts as a heartbeat.

        `check` may refuse, given the service that would be replaced.

        Raises:
            UnknownAppInstance, UnknownService: there is nothing to replace.
            RegistryError: what `check` raises.
        """
        service = self.service(service_id, app_instance_id)

        def decide(state: RegistryState) -> events.Event | None:
            nonlocal service
            before = _service(state, service_id, app_instance_id)
            check(before)
            service = described_anew(before, description, find_app(state, app_instance_id))
            return None if service == before else events.ServiceUpdated(service)

        await self._registry.commit(decide)
        self._renew(service_id, self._clock.monotonic_s(), self._clock.unix_ns())
        return service

    async def remove_service(self, app_instance_id: str, service_id: str) -> None:
        """Raises UnknownAppInstance or UnknownService."""

        def decide(state: RegistryState) -> events.Event:
            return events.ServiceRemoved(_service(state, service_id, app_instance_id).service_id)

        await self._registry.commit(decide)

    def service(
        self, service_id: str, app_instance_id: str | None = None, consumer: Locality | None = None
    ) -> ServiceInfo:
        """A service, of that application where one is named, as far as a consumer at that place may learn of it.

        Raises UnknownAppInstance or UnknownService.
        """
        service = _service(self._registry.state, service_id, app_instance_id)
        if consumer is not None and not service.is_offered_at(consumer):
            raise UnknownService(service_id)
        return service

    def services(
        self, query: ServiceQuery, app_instance_id: str | None = None, consumer: Locality | None = None
    ) -> list[ServiceInfo]:
        """Services that match, oldest first: those of an application where one is named, else those offered at a place.

        An application sees all of its own, from where it is; a consumer that does not say where it is, is on this host.

        Raises:
            UnknownAppInstance: the application that was named.
        """
        state = self._registry.state
        place = consumer or self.locality
        if app_instance_id is not None:
            place = find_app(state, app_instance_id).locality
        candidates, rest = _narrow(state, query, app_instance_id)
        asks_more = rest != _ANY
        found = [
            service.service_id
            for service in map(state.services.get, candidates)
            if service is not None
            and (_is_of(service, app_instance_id) if app_instance_id else service.is_offered_at(place))
            and (not asks_more or rest.matches(service, place))
        ]
        return [state.services[each] for each in state.in_order(found)]

    def transport(self, transport_id: str) -> TransportInfo:
        """A transport that the platform provides. Raises UnknownTransport."""
        for transport in self.transports:
            if transport.id == transport_id:
                return transport
        raise UnknownTransport(transport_id)

    # Liveness

    async def heartbeat(self, app_instance_id: str, service_id: str) -> Liveness:
        """Renews a lease, and makes a suspended service active again; an INACTIVE one stays as its owner put it.

        Raises UnknownAppInstance, UnknownService or LivenessNotMonitored.
        """
        if self.liveness(app_instance_id, service_id).state is ServiceState.SUSPENDED:
            await self._registry.commit(_activating(service_id))
        self._renew(service_id, self._clock.monotonic_s(), self._clock.unix_ns())
        self.watch.counts.renewals += 1
        return self.liveness(app_instance_id, service_id)

    def liveness(self, app_instance_id: str, service_id: str) -> Liveness:
        """Raises UnknownAppInstance, UnknownService or LivenessNotMonitored."""
        service = self.service(service_id, app_instance_id)
        if service_id not in self._leases:
            raise LivenessNotMonitored(service_id)
        lease = self._leases[service_id]
        return Liveness(service.state, lease.interval_s, lease.last_heartbeat_ns)

    async def renew(self, service_ids: Iterable[str]) -> Renewal:
        """Renews the leases of many services at once, and makes the suspended ones among them active again.

        A service without a lease is taken for heard of, and nothing else happens to it. Those of other hosts are unknown: their
        own platforms hear of them. Raises LogUnavailable.
        """
        now_s, now_ns, services = self._clock.monotonic_s(), self._clock.unix_ns(), self.state.services
        unknown, suspended = [], []
        shortest_s: int | None = None
        for service_id in service_ids:
            service = services.get(service_id)
            if service is None or service.origin:
                unknown.append(service_id)
                continue
            self._renew(service_id, now_s, now_ns)
            if service.liveness_interval_s is not None:
                shortest_s = min(shortest_s or service.liveness_interval_s, service.liveness_interval_s)
                self.watch.counts.renewals += 1
            if service.state is ServiceState.SUSPENDED:
                suspended.append(service_id)
        if suspended:
            await asyncio.gather(*(self._registry.commit(_activating(each)) for each in suspended))
        return Renewal(shortest_s, tuple(unknown))

    async def suspend_overdue(self) -> list[str]:
        """See `LivenessWatch.suspend_overdue`."""
        return await self.watch.suspend_overdue()

    def _renew(self, service_id: str, now_s: float, now_ns: int) -> None:
        self._leases.renew(service_id, now_s, now_ns)
        if self._relay is not None and service_id in self._leases:
            self._relay.note(service_id, now_ns)

    def _hear_of_leadership(self, leads: bool) -> None:
        if leads:
            self._leases.begin_anew(self._clock.monotonic_s())

    def _note(self, effect: to_do.Effect) -> None:
        match effect:
            case to_do.ExpectHeartbeats(service_id, interval_s, evict_after):
                now_s, now_ns = self._clock.monotonic_s(), self._clock.unix_ns()
                self._leases.expect(service_id, interval_s, now_s, now_ns, evict_after)
            case to_do.ForgetHeartbeats(service_id):
                self._leases.forget(service_id)


def _activating(service_id: str) -> Decide:
    def decide(state: RegistryState) -> events.Event | None:
        service = state.services.get(service_id)
        suspended = service is not None and service.state is ServiceState.SUSPENDED
        return events.ServiceStateChanged(service_id, ServiceState.ACTIVE) if suspended else None

    return decide


_ANY = ServiceQuery()


def _narrow(
    state: RegistryState, query: ServiceQuery, app_instance_id: str | None
) -> tuple[Iterable[str], ServiceQuery]:
    """Ids among which all are that match, by the sharpest index there is, and what that index leaves to be asked."""
    none: frozenset[str] = frozenset()
    if query.service_ids:
        return query.service_ids, replace(query, service_ids=none)
    if query.names:
        return _found_by(state, "name", query.names), replace(query, names=none)
    if query.category_ids:
        return _found_by(state, "category", query.category_ids), replace(query, category_ids=none)
    return state.services if app_instance_id is None else state.services_with(("app", app_instance_id)), query


def _found_by(state: RegistryState, kind: str, values: Iterable[str]) -> Iterable[str]:
    return (service_id for value in values for service_id in state.services_with((kind, value)))


def _service(state: RegistryState, service_id: str, app_instance_id: str | None) -> ServiceInfo:
    if app_instance_id is not None:
        find_app(state, app_instance_id)
    service = state.services.get(service_id)
    if service is None or not (app_instance_id is None or _is_of(service, app_instance_id)):
        raise UnknownService(service_id)
    return service


def _is_of(service: ServiceInfo, app_instance_id: str) -> bool:
    """Whether it is one of this host's application instance; one of another host may have the same id."""
    return service.app_instance_id == app_instance_id and not service.origin
