"""What it takes to register a service, and to describe one anew: decisions for `Registry.commit`, pure but for the waiting."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import RegistrationKey, ServiceDescription, ServiceInfo
from mec_platform.registry import events
from mec_platform.registry.applications import find_running_app
from mec_platform.registry.errors import QuotaExceeded, RegistrationKeyUsed
from mec_platform.registry.idempotency import digest_of
from mec_platform.registry.leases import choose_eviction, choose_interval_s
from mec_platform.registry.state import RegistryState


class Registration:
    """One registration, to be decided as often as it takes; see `ServiceRegistry.register_service` for its meaning."""

    def __init__(
        self, app_instance_id: str, description: ServiceDescription, key: str, service_id: str, quotas: Quotas
    ) -> None:
        self._app_instance_id = app_instance_id
        self._description = description
        self._registration = RegistrationKey(key, digest_of(description)) if key else None
        self._service_id = service_id
        self._quotas = quotas
        self._known: ServiceInfo | None = None

    def decide(self, state: RegistryState) -> events.Event | None:
        """None where the service is registered already.

        Raises:
            UnknownAppInstance, StateConflict, RegistrationKeyUsed, QuotaExceeded: as the state has it.
        """
        app_instance_id, registration = self._app_instance_id, self._registration
        app = find_running_app(state, app_instance_id)
        if registration is not None:
            self._known = known = state.service_registered_as(app_instance_id, registration.key)
            if known is not None:
                if known.registration != registration:
                    raise RegistrationKeyUsed(registration.key, known.service_id)
                return None
        if len(state.services_with(("app", app_instance_id))) >= self._quotas.services_per_app:
            raise QuotaExceeded(f"application instance {app_instance_id!r}", self._quotas.services_per_app, "services")
        return events.ServiceRegistered(service_info(self._description, self._service_id, app, registration))

    def service(self, event: events.Event | None) -> ServiceInfo:
        """The service, from what was decided last."""
        if isinstance(event, events.ServiceRegistered):
            return event.service
        assert self._known is not None
        return self._known


class RegistrationUnderWay:
    """A registration that waits for the log."""

    def __init__(self, registration: Registration, outcome: asyncio.Future[events.Event | None]) -> None:
        self._registration = registration
        self._outcome = outcome

    async def service(self) -> ServiceInfo:
        """The service, once it is durable and visible. Raises what `Registry.commit` raises."""
        return self._registration.service(await self._outcome)

    def cancel(self) -> None:
        """Nobody waits for it any more; it may or may not happen."""
        self._outcome.cancel()


_DESCRIBED = tuple(each.name for each in fields(ServiceDescription))


def service_info(
    description: ServiceDescription, service_id: str, app: AppInstance, registration: RegistrationKey | None
) -> ServiceInfo:
    """The service that a description offers, with the platform's terms for its heartbeats."""
    offered_s, eviction = description.liveness_interval_s, description.evict_after_intervals
    offered = {each: getattr(description, each) for each in _DESCRIBED}
    offered["liveness_interval_s"] = None if offered_s is None else choose_interval_s(offered_s)
    offered["evict_after_intervals"] = None if eviction is None else choose_eviction(eviction)
    return ServiceInfo(
        **offered,
        service_id=service_id,
        app_instance_id=app.app_instance_id,
        locality=app.locality,
        registration=registration,
    )


def described_anew(before: ServiceInfo, description: ServiceDescription, app: AppInstance) -> ServiceInfo:
    """The service under another description: what that does not say stays."""
    after = service_info(description, before.service_id, app, before.registration)
    kept = {name: getattr(before, name) for name in _KEPT_UNLESS_SAID if getattr(after, name) is None}
    return replace(after, **kept)


_KEPT_UNLESS_SAID = ("liveness_interval_s", "evict_after_intervals", "capabilities")
