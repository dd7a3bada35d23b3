"""Services and their liveness (ETSI GS MEC 011 clauses 5.2.4 to 5.2.6 and 8.2): a thin shell over `registry`.

Its counterparts are `enablement_api` (Mp1) and the gRPC registry service. It knows neither HTTP nor gRPC. Questions are
answered from memory; heartbeats renew leases and are not written to the log. Replicas tell each other whose heartbeats
they got, and the one that leads suspends what is overdue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace

from mec_platform.background import BackgroundTasks
from mec_platform.domain.applications import AppInstance
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
from mec_platform.registry.applications import find_app, find_running_app
from mec_platform.registry.errors import (
    LivenessNotMonitored,
    LogUnavailable,
    QuotaExceeded,
    UnknownService,
    UnknownTransport,
)
from mec_platform.registry.heartbeats import HeartbeatExchange
from mec_platform.registry.leases import SHORTEST_INTERVAL_S, LeaseTable, choose_interval_s
from mec_platform.registry.registry import Decide, Registry
from mec_platform.registry.state import RegistryState

logger = logging.getLogger(__name__)

LIVENESS_CHECK_S = SHORTEST_INTERVAL_S / 4
"""How often leases are looked at: late by a quarter of the shortest interval at most."""

STALL_S = 1.0
"""A check that comes later than this was held up together with the heartbeats; they get the lost time back."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """MEC 011 clause 8.1.2.4: what the platform knows of a service's heartbeats."""

    state: ServiceState
    interval_s: int
    last_heartbeat_ns: int


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
        self._tasks = BackgroundTasks()
        registry.add_listener(self._note)
        registry.leadership.add_listener(self._hear_of_leadership)

    def start(self) -> None:
        """Begins to watch heartbeats."""
        self._tasks.start("registry liveness", self._watch_liveness())
        if self._exchange is not None:
            self._tasks.start("heartbeats for others", self._tell_heartbeats(self._exchange))
            self._tasks.start("heartbeats of others", self._hear_heartbeats(self._exchange))

    async def stop(self) -> None:
        """Ends the watch over heartbeats."""
        await self._tasks.stop()

    @property
    def state(self) -> RegistryState:
        """The registry's state as of now."""
        return self._registry.state

    # Services

    async def register_service(self, app_instance_id: str, description: ServiceDescription) -> ServiceInfo:
        """Registers a service under an id of the platform's making.

        Raises:
            UnknownAppInstance: there is nobody to offer it.
            StateConflict: the application instance has ended.
            QuotaExceeded: it has as many services as an instance may have.
        """
        service_id = self._registry.new_id()

        def decide(state: RegistryState) -> events.ServiceRegistered:
            app = find_running_app(state, app_instance_id)
            if len(state.services_with(("app", app_instance_id))) >= self._quotas.services_per_app:
                raise QuotaExceeded(
                    f"application instance {app_instance_id!r}", self._quotas.services_per_app, "services"
                )
            return events.ServiceRegistered(_service_info(description, service_id, app))

        event = await self._registry.commit(decide)
        assert isinstance(event, events.ServiceRegistered)
        return event.service

    async def update_service(
        self,
        app_instance_id: str,
        service_id: str,
        description: ServiceDescription,
        check: Callable[[ServiceInfo], None] = lambda before: None,
    ) -> ServiceInfo:
        """Replaces a service's description; without a liveness interval the agreed one stays. Counts as a heartbeat.

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
            service = _service_info(description, service_id, find_app(state, app_instance_id))
            if service.liveness_interval_s is None:
                service = replace(service, liveness_interval_s=before.liveness_interval_s)
            return None if service == before else events.ServiceUpdated(service)

        await self._registry.commit(decide)
        self._renew(service_id)
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
        found = [
            service
            for service in map(state.services.get, _candidates(state, query, app_instance_id))
            if service is not None
            and (service.app_instance_id == app_instance_id if app_instance_id else service.is_offered_at(place))
            and query.matches(service, place)
        ]
        return sorted(found, key=lambda service: state.order[service.service_id])

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

            def decide(state: RegistryState) -> events.Event | None:
                suspended = _service(state, service_id, app_instance_id).state is ServiceState.SUSPENDED
                return events.ServiceStateChanged(service_id, ServiceState.ACTIVE) if suspended else None

            await self._registry.commit(decide)
        self._renew(service_id)
        return self.liveness(app_instance_id, service_id)

    def liveness(self, app_instance_id: str, service_id: str) -> Liveness:
        """Raises UnknownAppInstance, UnknownService or LivenessNotMonitored."""
        service = self.service(service_id, app_instance_id)
        if service_id not in self._leases:
            raise LivenessNotMonitored(service_id)
        lease = self._leases[service_id]
        return Liveness(service.state, lease.interval_s, lease.last_heartbeat_ns)

    async def suspend_overdue(self) -> list[str]:
        """Suspends every active service that has missed an interval; returns their ids."""
        overdue = [
            service_id
            for service_id in self._leases.overdue(self._clock.monotonic_s())
            if self.state.services[service_id].state is ServiceState.ACTIVE
        ]
        changed = await asyncio.gather(*(self._registry.commit(self._suspend(each)) for each in overdue))
        suspended = [service_id for service_id, event in zip(overdue, changed, strict=True) if event is not None]
        for service_id in suspended:
            logger.warning("service %s missed its heartbeat and is suspended", service_id)
        return suspended

    def _suspend(self, service_id: str) -> Decide:
        def decide(state: RegistryState) -> events.Event | None:
            service = state.services.get(service_id)
            # Asked again: a heartbeat may have come while earlier changes were written.
            overdue = self._leases.is_overdue(service_id, self._clock.monotonic_s())
            if service is None or service.state is not ServiceState.ACTIVE or not overdue:
                return None
            return events.ServiceStateChanged(service_id, ServiceState.SUSPENDED)

        return decide

    def _renew(self, service_id: str) -> None:
        now_ns = self._clock.unix_ns()
        self._leases.renew(service_id, self._clock.monotonic_s(), now_ns)
        if self._exchange is not None and service_id in self._leases:
            self._heard[service_id] = now_ns

    async def _watch_liveness(self) -> None:
        while True:
            before = self._clock.monotonic_s()
            await self._clock.sleep(LIVENESS_CHECK_S)
            late_s = self._clock.monotonic_s() - before - LIVENESS_CHECK_S
            if late_s > STALL_S:
                logger.warning("the platform stood still for %.1f s; heartbeats get that time back", late_s)
                self._leases.extend_all(late_s)
            if self._registry.is_stale:
                # Others may have heard what cannot be told now, and nothing can be suspended.
                self._leases.begin_anew(self._clock.monotonic_s())
            elif self._registry.leadership.is_leader:
                try:
                    await self.suspend_overdue()
                except LogUnavailable as error:
                    logger.error("overdue services stay as they are for now: %s", error)

    async def _tell_heartbeats(self, exchange: HeartbeatExchange) -> None:
        while True:
            await self._clock.sleep(LIVENESS_CHECK_S)
            heard, self._heard = self._heard, {}
            try:
                await exchange.tell(heard)
            except LogUnavailable as error:
                logger.debug("heartbeats are told later: %s", error)
                self._heard = heard | self._heard

    async def _hear_heartbeats(self, exchange: HeartbeatExchange) -> None:
        while True:
            try:
                async with aclosing(exchange.hear()) as tellings:
                    async for heard in tellings:
                        now_s = self._clock.monotonic_s()
                        for service_id, at_unix_ns in heard.items():
                            self._leases.renew(service_id, now_s, at_unix_ns)
            except LogUnavailable as error:
                logger.debug("heartbeats of others are missed for now: %s", error)
                await self._clock.sleep(LIVENESS_CHECK_S)

    def _hear_of_leadership(self, leads: bool) -> None:
        if leads:
            self._leases.begin_anew(self._clock.monotonic_s())

    def _note(self, effect: to_do.Effect) -> None:
        match effect:
            case to_do.ExpectHeartbeats(service_id, interval_s):
                clock = self._registry.clock
                self._leases.expect(service_id, interval_s, clock.monotonic_s(), clock.unix_ns())
            case to_do.ForgetHeartbeats(service_id):
                self._leases.forget(service_id)


def _candidates(state: RegistryState, query: ServiceQuery, app_instance_id: str | None) -> Iterable[str]:
    """Ids among which all are that match: by the sharpest index there is for the query."""
    if query.service_ids:
        return query.service_ids
    for kind, values in (("name", query.names), ("category", query.category_ids)):
        if values:
            return (service_id for value in values for service_id in state.services_with((kind, value)))
    return state.services if app_instance_id is None else state.services_with(("app", app_instance_id))


def _service(state: RegistryState, service_id: str, app_instance_id: str | None) -> ServiceInfo:
    if app_instance_id is not None:
        find_app(state, app_instance_id)
    service = state.services.get(service_id)
    if service is None or app_instance_id not in (None, service.app_instance_id):
        raise UnknownService(service_id)
    return service


def _service_info(description: ServiceDescription, service_id: str, app: AppInstance) -> ServiceInfo:
    offered_s = description.liveness_interval_s
    offered = {each.name: getattr(description, each.name) for each in fields(ServiceDescription)}
    offered["liveness_interval_s"] = None if offered_s is None else choose_interval_s(offered_s)
    return ServiceInfo(**offered, service_id=service_id, app_instance_id=app.app_instance_id, locality=app.locality)
