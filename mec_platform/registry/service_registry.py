"""The service registry: the shell around `state`. Decide, append, apply; answer queries from memory.

Its counterparts are `enablement_api` (Mp1) and the gRPC registry service. It knows neither HTTP nor gRPC. Several
registries may share one log: whoever loses a compare-and-set reads what the other appended and decides again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, assert_never

from mec_platform.background import BackgroundTasks
from mec_platform.domain.applications import AppDescription, AppInstance, AppState
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import ServiceDescription, ServiceInfo, ServiceQuery, ServiceState, TransportInfo
from mec_platform.registry import state as machine
from mec_platform.registry.clock import Clock, SystemClock
from mec_platform.registry.errors import (
    LivenessNotMonitored,
    LogUnavailable,
    RevisionConflict,
    UnknownAppInstance,
    UnknownService,
    UnknownTransport,
)
from mec_platform.registry.event_codec import decode_event, encode_event
from mec_platform.registry.event_log import EventLog, Record
from mec_platform.registry.leases import SHORTEST_INTERVAL_S, LeaseTable, choose_interval_s

logger = logging.getLogger(__name__)

STREAM = "registry"

LIVENESS_CHECK_S = SHORTEST_INTERVAL_S / 4
"""How often leases are looked at: late by a quarter of the shortest interval at most."""

STALL_S = 1.0
"""A check that comes later than this was held up together with the heartbeats; they get the lost time back."""

Listener = Callable[[machine.AnnounceService], None]


@dataclass(frozen=True, slots=True)
class Liveness:
    """MEC 011 clause 8.1.2.4: what the platform knows of a service's heartbeats."""

    state: ServiceState
    interval_s: int
    last_heartbeat_ns: int


class ServiceRegistry:
    """Applications and services of one MEC host. Between `start` and `stop` its state follows the log.

    Every change goes through `_commit`. Methods raise the errors of `errors`, each says which.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        locality: Locality,
        transports: Sequence[TransportInfo] = (),
        clock: Clock | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._log = log
        self.locality = locality
        self.transports = tuple(transports)
        self._clock = clock or SystemClock()
        self._new_id = new_id
        self._state = machine.RegistryState()
        self._leases = LeaseTable()
        self._listeners: list[Listener] = []
        self._writing = asyncio.Lock()
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Rebuilds the state from the log and begins to watch heartbeats.

        Raises:
            LogUnavailable: the log cannot be read.
            IllegalEvent: the log holds what this version cannot have written.
        """
        await self._catch_up()
        self._tasks.start("registry liveness", self._watch_liveness())

    async def stop(self) -> None:
        """Ends the watch over heartbeats; the log stays open and is its owner's to close."""
        await self._tasks.stop()

    @property
    def state(self) -> machine.RegistryState:
        """The state as of now; immutable, so it may be kept."""
        return self._state

    def add_listener(self, listener: Listener) -> None:
        """Calls `listener` for every change of a service's availability from now on, in order; it must not block."""
        self._listeners.append(listener)

    # Application instances

    async def register_app(self, description: AppDescription) -> AppInstance:
        """Registers an application instance under an id of the platform's making."""
        app = AppInstance(app_instance_id=self._new_id(), locality=self.locality, **_fields(description))
        await self._commit(lambda state: machine.AppRegistered(app))
        return app

    async def confirm_ready(self, app_instance_id: str) -> None:
        """Notes that the application runs; confirming twice is harmless. Raises UnknownAppInstance."""

        def decide(state: machine.RegistryState) -> machine.Event | None:
            ready = _app(state, app_instance_id).state is AppState.READY
            return None if ready else machine.AppConfirmedReady(app_instance_id)

        await self._commit(decide)

    async def remove_app(self, app_instance_id: str) -> None:
        """Removes an application instance and its services. Raises UnknownAppInstance."""

        def decide(state: machine.RegistryState) -> machine.Event:
            return machine.AppLeft(_app(state, app_instance_id).app_instance_id)

        await self._commit(decide)

    def app(self, app_instance_id: str) -> AppInstance:
        """Raises UnknownAppInstance."""
        return _app(self._state, app_instance_id)

    # Services

    async def register_service(self, app_instance_id: str, description: ServiceDescription) -> ServiceInfo:
        """Registers a service under an id of the platform's making. Raises UnknownAppInstance."""
        service_id = self._new_id()

        def decide(state: machine.RegistryState) -> machine.Event:
            app = _app(state, app_instance_id)
            return machine.ServiceRegistered(_service_info(description, service_id, app))

        await self._commit(decide)
        return self._state.services[service_id]

    async def update_service(
        self, app_instance_id: str, service_id: str, description: ServiceDescription
    ) -> ServiceInfo:
        """Replaces a service's description; without a liveness interval the agreed one stays. Counts as a heartbeat.

        Raises UnknownAppInstance or UnknownService.
        """

        def decide(state: machine.RegistryState) -> machine.Event | None:
            before = _service(state, service_id, app_instance_id)
            after = _service_info(description, service_id, _app(state, app_instance_id))
            if after.liveness_interval_s is None:
                after = replace(after, liveness_interval_s=before.liveness_interval_s)
            return None if after == before else machine.ServiceUpdated(after)

        await self._commit(decide)
        self._leases.renew(service_id, self._clock.monotonic_s(), self._clock.unix_ns())
        return self._state.services[service_id]

    async def remove_service(self, app_instance_id: str, service_id: str) -> None:
        """Raises UnknownAppInstance or UnknownService."""

        def decide(state: machine.RegistryState) -> machine.Event:
            return machine.ServiceRemoved(_service(state, service_id, app_instance_id).service_id)

        await self._commit(decide)

    def service(self, service_id: str, app_instance_id: str | None = None) -> ServiceInfo:
        """A service, of that application where one is named. Raises UnknownAppInstance or UnknownService."""
        return _service(self._state, service_id, app_instance_id)

    def services(self, query: ServiceQuery, app_instance_id: str | None = None) -> list[ServiceInfo]:
        """Services that match, of that application where one is named, oldest first. Raises UnknownAppInstance.

        An application consumes from where it is, an anonymous consumer from this host.
        """
        consumer = self.locality if app_instance_id is None else self.app(app_instance_id).locality
        return [
            service
            for service in self._state.services.values()
            if app_instance_id in (None, service.app_instance_id) and query.matches(service, consumer)
        ]

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

            def decide(state: machine.RegistryState) -> machine.Event | None:
                suspended = _service(state, service_id, app_instance_id).state is ServiceState.SUSPENDED
                return machine.ServiceStateChanged(service_id, ServiceState.ACTIVE) if suspended else None

            await self._commit(decide)
        self._leases.renew(service_id, self._clock.monotonic_s(), self._clock.unix_ns())
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
        suspended = []
        for service_id in self._leases.overdue(self._clock.monotonic_s()):

            def decide(state: machine.RegistryState, service_id: str = service_id) -> machine.Event | None:
                service = state.services.get(service_id)
                # Asked again: a heartbeat may have come while an earlier suspension was written.
                overdue = self._leases.is_overdue(service_id, self._clock.monotonic_s())
                if service is None or service.state is not ServiceState.ACTIVE or not overdue:
                    return None
                return machine.ServiceStateChanged(service_id, ServiceState.SUSPENDED)

            if await self._commit(decide):
                suspended.append(service_id)
                logger.warning("service %s missed its heartbeat and is suspended", service_id)
        return suspended

    async def _watch_liveness(self) -> None:
        while True:
            before = self._clock.monotonic_s()
            await self._clock.sleep(LIVENESS_CHECK_S)
            late_s = self._clock.monotonic_s() - before - LIVENESS_CHECK_S
            if late_s > STALL_S:
                logger.warning("the platform stood still for %.1f s; heartbeats get that time back", late_s)
                self._leases.extend_all(late_s)
            try:
                await self.suspend_overdue()
            except LogUnavailable as error:
                logger.error("overdue services stay as they are for now: %s", error)

    # The log

    async def _commit(self, decide: Callable[[machine.RegistryState], machine.Event | None]) -> bool:
        """Appends and applies the event that `decide` names; False where it names none. The one door for changes."""
        async with self._writing:
            while True:
                event = decide(self._state)
                if event is None:
                    return False
                kind, payload = encode_event(event)
                try:
                    record = Record(kind, payload, at_unix_ns=self._clock.unix_ns())
                    revision = await self._log.append(STREAM, [record], self._state.revision)
                except RevisionConflict:
                    await self._catch_up()
                    continue
                self._apply([(revision, event)])
                return True

    async def _catch_up(self) -> None:
        entries = await self._log.read(STREAM, self._state.revision)
        self._apply([(entry.revision, decode_event(entry)) for entry in entries])

    def _apply(self, events: Sequence[tuple[int, machine.Event]]) -> None:
        self._state, effects = machine.apply_events(self._state, events)
        for effect in effects:
            match effect:
                case machine.ExpectHeartbeats(service_id, interval_s):
                    now_s, now_ns = self._clock.monotonic_s(), self._clock.unix_ns()
                    self._leases.expect(service_id, interval_s, now_s, now_ns)
                case machine.ForgetHeartbeats(service_id):
                    self._leases.forget(service_id)
                case machine.AnnounceService():
                    for listener in self._listeners:
                        listener(effect)
                case _:
                    assert_never(effect)


def _app(state: machine.RegistryState, app_instance_id: str) -> AppInstance:
    if app_instance_id not in state.apps:
        raise UnknownAppInstance(app_instance_id)
    return state.apps[app_instance_id]


def _service(state: machine.RegistryState, service_id: str, app_instance_id: str | None) -> ServiceInfo:
    if app_instance_id is not None:
        _app(state, app_instance_id)
    service = state.services.get(service_id)
    if service is None or app_instance_id not in (None, service.app_instance_id):
        raise UnknownService(service_id)
    return service


def _service_info(description: ServiceDescription, service_id: str, app: AppInstance) -> ServiceInfo:
    offered_s = description.liveness_interval_s
    attributes = _fields(description) | {
        "liveness_interval_s": None if offered_s is None else choose_interval_s(offered_s),
        "service_id": service_id,
        "app_instance_id": app.app_instance_id,
        "locality": app.locality,
    }
    return ServiceInfo(**attributes)


def _fields(value: AppDescription | ServiceDescription) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
