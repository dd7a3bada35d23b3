"""Watches over heartbeats: suspends services that have missed one, and evicts those that stay away.

A thin shell: `leases` knows who is silent, `mass_expiry` whether that is to be believed, and `registry` makes the changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from mec_platform.background import BackgroundTasks
from mec_platform.domain.services import ServiceState
from mec_platform.registry import events
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.leases import SHORTEST_INTERVAL_S, LeaseTable
from mec_platform.registry.mass_expiry import MassExpirySettings, Protection, decide_protection
from mec_platform.registry.registry import Decide, Registry
from mec_platform.registry.state import RegistryState

logger = logging.getLogger(__name__)

LIVENESS_CHECK_S = SHORTEST_INTERVAL_S / 4
"""How often leases are looked at: late by a quarter of the shortest interval at most."""

STALL_S = 1.0
"""A check that comes later than this was held up together with the heartbeats; they get the lost time back."""

LARGEST_BATCH = 256
"""Changes that wait for the log at once: after a lost network there may be thousands, and others want to write too."""


@dataclass(slots=True)
class LivenessCounts:
    """Since the start, for operators."""

    renewals: int = 0
    suspensions: int = 0
    evictions: int = 0


class LivenessWatch:
    """The watch over one registry's leases, between `start` and `stop`."""

    def __init__(self, registry: Registry, leases: LeaseTable, mass_expiry: MassExpirySettings) -> None:
        self._registry = registry
        self._leases = leases
        self._clock = registry.clock
        self._mass_expiry = mass_expiry
        self._tasks = BackgroundTasks()
        self.protection = Protection()
        self.counts = LivenessCounts()

    def start(self) -> None:
        """Begins to watch heartbeats."""
        self._tasks.start("registry liveness", self._watch())

    async def stop(self) -> None:
        """Ends that."""
        await self._tasks.stop()

    async def suspend_overdue(self) -> list[str]:
        """Suspends what has missed an interval and evicts what is due, unless too many have; ids of the suspended.

        Raises LogUnavailable; what was not done is done by the next call.
        """
        now_s = self._clock.monotonic_s()
        self._leases.advance(now_s)
        self._protect(now_s)
        if self.protection.is_on:
            return []
        suspended = await self._suspend(tuple(self._leases.to_suspend))
        await self._evict(tuple(self._leases.to_evict))
        return suspended

    def _protect(self, now_s: float) -> None:
        after_s = self.protection.counts_after_s(now_s, self._mass_expiry)
        lapsed, living = self._leases.count_lapsed(after_s)
        before, self.protection = (
            self.protection,
            decide_protection(self.protection, lapsed, living, now_s, self._mass_expiry),
        )
        if self.protection.is_on and not before.is_on:
            logger.error(
                "%d of %d services fell silent within %.0f s: the fault may be on this side, so none is suspended or evicted "
                "until they are heard of again or %.0f s have passed; look after the network",
                lapsed,
                living,
                self._mass_expiry.window_s,
                self._mass_expiry.longest_s,
            )
        elif before.is_on and not self.protection.is_on:
            logger.warning("silent services are suspended and evicted again; %d of %d are silent", lapsed, living)

    async def _suspend(self, silent: Iterable[str]) -> list[str]:
        state, suspended = self._registry.state, []
        active = []
        for service_id in silent:
            service = state.services.get(service_id)
            if service is not None and service.state is ServiceState.ACTIVE:
                active.append(service_id)
            else:
                # It stays as it is, but its time to eviction runs.
                self._leases.note_suspended(service_id, self._clock.monotonic_s())
        for batch in _batches(active):
            changed = await asyncio.gather(*(self._registry.commit(self._suspending(each)) for each in batch))
            for service_id, event in zip(batch, changed, strict=True):
                self._leases.note_suspended(service_id, self._clock.monotonic_s())
                if event is not None:
                    suspended.append(service_id)
                    logger.warning("service %s missed its heartbeat and is suspended", service_id)
        self.counts.suspensions += len(suspended)
        return suspended

    async def _evict(self, due: Iterable[str]) -> None:
        for batch in _batches(list(due)):
            changed = await asyncio.gather(*(self._registry.commit(self._evicting(each)) for each in batch))
            for service_id, event in zip(batch, changed, strict=True):
                if event is not None:
                    self.counts.evictions += 1
                    logger.warning("service %s stayed silent after its suspension and is removed", service_id)

    def _suspending(self, service_id: str) -> Decide:
        def decide(state: RegistryState) -> events.Event | None:
            service = state.services.get(service_id)
            # Asked again: a heartbeat may have come while earlier changes were written.
            if service is None or service.state is not ServiceState.ACTIVE or not self._leases.is_silent(service_id):
                return None
            return events.ServiceStateChanged(service_id, ServiceState.SUSPENDED)

        return decide

    def _evicting(self, service_id: str) -> Decide:
        def decide(state: RegistryState) -> events.Event | None:
            if service_id not in state.services or not self._leases.is_silent(service_id):
                return None
            return events.ServiceRemoved(service_id)

        return decide

    async def _watch(self) -> None:
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


def _batches(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + LARGEST_BATCH] for start in range(0, len(ids), LARGEST_BATCH))
