"""The registry as a pure state machine: `apply_events(state, events) -> (state, effects)`.

Events are facts that the log already holds, so applying one never refuses for business reasons; whether it may happen
is decided before it is appended (`service_registry`). An event that contradicts the state means a corrupt log and
raises IllegalEvent. The state changes through `_transition` only. No clock, no randomness, no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import assert_never

from mec_platform.domain.applications import AppInstance, AppState
from mec_platform.domain.services import ServiceInfo, ServiceState
from mec_platform.domain.subscriptions import ChangeType


@dataclass(frozen=True, slots=True)
class AppRegistered:
    """An application instance came."""

    app: AppInstance


@dataclass(frozen=True, slots=True)
class AppConfirmedReady:
    """An application instance said that it is up and running."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class AppLeft:
    """An application instance is gone, and its services with it."""

    app_instance_id: str


@dataclass(frozen=True, slots=True)
class ServiceRegistered:
    """A service was offered."""

    service: ServiceInfo


@dataclass(frozen=True, slots=True)
class ServiceUpdated:
    """Its application described a service anew; the ids stay."""

    service: ServiceInfo


@dataclass(frozen=True, slots=True)
class ServiceStateChanged:
    """Nothing but the state of a service changed."""

    service_id: str
    state: ServiceState


@dataclass(frozen=True, slots=True)
class ServiceRemoved:
    """Its application withdrew a service."""

    service_id: str


Event = (
    AppRegistered
    | AppConfirmedReady
    | AppLeft
    | ServiceRegistered
    | ServiceUpdated
    | ServiceStateChanged
    | ServiceRemoved
)


@dataclass(frozen=True, slots=True)
class AnnounceService:
    """Tell whoever listens; `service` is as it is after the change, or as it was last where it was REMOVED."""

    change: ChangeType
    service: ServiceInfo


@dataclass(frozen=True, slots=True)
class ExpectHeartbeats:
    """From now on the service must be heard of at this interval."""

    service_id: str
    interval_s: int


@dataclass(frozen=True, slots=True)
class ForgetHeartbeats:
    """Heartbeats of this service do not matter any more."""

    service_id: str


Effect = AnnounceService | ExpectHeartbeats | ForgetHeartbeats


class IllegalEvent(Exception):
    """The event cannot follow the state: the log is corrupt, or its writer broke the rules."""


@dataclass(frozen=True, slots=True)
class RegistryState:
    """Applications and services by id, in order of registration. `revision` is that of the last applied event."""

    apps: Mapping[str, AppInstance] = field(default_factory=lambda: MappingProxyType({}))
    services: Mapping[str, ServiceInfo] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 0


def apply_events(state: RegistryState, events: Iterable[tuple[int, Event]]) -> tuple[RegistryState, tuple[Effect, ...]]:
    """Applies events, each with its revision, in order; returns the new state and what is to be done about them.

    Copies the state once per call, not once per event, so that replaying a long log stays linear.

    Raises:
        IllegalEvent: an event does not fit, or revisions do not grow; `state` is unharmed.
    """
    apps, services, revision = dict(state.apps), dict(state.services), state.revision
    effects: list[Effect] = []
    for event_revision, event in events:
        if event_revision <= revision:
            raise IllegalEvent(f"revision {event_revision} does not follow {revision}")
        revision = event_revision
        effects += _transition(apps, services, event)
    return RegistryState(MappingProxyType(apps), MappingProxyType(services), revision), tuple(effects)


def _transition(apps: dict[str, AppInstance], services: dict[str, ServiceInfo], event: Event) -> list[Effect]:
    match event:
        case AppRegistered(app):
            _require(app.app_instance_id not in apps, event)
            apps[app.app_instance_id] = app
            return []
        case AppConfirmedReady(app_instance_id):
            _require(app_instance_id in apps, event)
            apps[app_instance_id] = replace(apps[app_instance_id], state=AppState.READY)
            return []
        case AppLeft(app_instance_id):
            _require(app_instance_id in apps, event)
            del apps[app_instance_id]
            orphans = [service for service in services.values() if service.app_instance_id == app_instance_id]
            return [effect for service in orphans for effect in _remove(services, service)]
        case ServiceRegistered(service):
            _require(service.app_instance_id in apps and service.service_id not in services, event)
            services[service.service_id] = service
            return [*_liveness_effects(service), AnnounceService(ChangeType.ADDED, service)]
        case ServiceUpdated(service):
            before = services.get(service.service_id)
            _require(before is not None and before.app_instance_id == service.app_instance_id, event)
            services[service.service_id] = service
            state_only = before is not None and replace(before, state=service.state) == service
            change = ChangeType.STATE_CHANGED if state_only else ChangeType.ATTRIBUTES_CHANGED
            announcement = [] if service == before else [AnnounceService(change, service)]
            return [*_liveness_effects(service), *announcement]
        case ServiceStateChanged(service_id, new_state):
            _require(service_id in services, event)
            service = services[service_id] = replace(services[service_id], state=new_state)
            return [*_liveness_effects(service), AnnounceService(ChangeType.STATE_CHANGED, service)]
        case ServiceRemoved(service_id):
            _require(service_id in services, event)
            return _remove(services, services[service_id])
        case _:
            assert_never(event)


def _remove(services: dict[str, ServiceInfo], service: ServiceInfo) -> list[Effect]:
    del services[service.service_id]
    return [ForgetHeartbeats(service.service_id), AnnounceService(ChangeType.REMOVED, service)]


def _liveness_effects(service: ServiceInfo) -> list[Effect]:
    """A suspended service is still expected to come back with a heartbeat, so it keeps its lease's interval."""
    if service.liveness_interval_s is None:
        return [ForgetHeartbeats(service.service_id)]
    return [ExpectHeartbeats(service.service_id, service.liveness_interval_s)]


def _require(holds: bool, event: Event) -> None:
    if not holds:
        raise IllegalEvent(f"{event} contradicts the state of the registry")
