"""Tells other replicas which heartbeats this one got, with the KPIs that came with them, and hears of theirs.

The shell around `heartbeats`, the port; where a platform has no replicas there is none.
"""

from __future__ import annotations

import logging
from contextlib import aclosing

from mec_platform.background import BackgroundTasks
from mec_platform.registry.clock import Clock
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.heartbeats import Heartbeat, HeartbeatExchange
from mec_platform.registry.kpis import KpiTable
from mec_platform.registry.leases import SHORTEST_INTERVAL_S, LeaseTable

logger = logging.getLogger(__name__)

TELL_EVERY_S = SHORTEST_INTERVAL_S / 4
"""As often as the leader looks for silent services."""


class HeartbeatRelay:
    """Between one replica's leases and KPIs, and those of all others, from `start` to `stop`."""

    def __init__(self, exchange: HeartbeatExchange, leases: LeaseTable, kpis: KpiTable, clock: Clock) -> None:
        self._exchange = exchange
        self._leases = leases
        self._kpis = kpis
        self._clock = clock
        self._heard: dict[str, int] = {}
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins to tell and to hear."""
        self._tasks.start("heartbeats for others", self._tell())
        self._tasks.start("heartbeats of others", self._hear())

    async def stop(self) -> None:
        """Ends that; what was not told yet is not told any more."""
        await self._tasks.stop()

    def note(self, service_id: str, at_unix_ns: int) -> None:
        """This replica has heard of a service; its KPIs may be noted a moment later."""
        self._heard[service_id] = at_unix_ns

    async def _tell(self) -> None:
        while True:
            await self._clock.sleep(TELL_EVERY_S)
            heard, self._heard = self._heard, {}
            try:
                await self._exchange.tell({each: Heartbeat(at, self._kpis.get(each)) for each, at in heard.items()})
            except LogUnavailable as error:
                logger.debug("heartbeats are told later: %s", error)
                self._heard = heard | self._heard

    async def _hear(self) -> None:
        while True:
            try:
                async with aclosing(self._exchange.hear()) as tellings:
                    async for heard in tellings:
                        for service_id, heartbeat in heard.items():
                            self._take(service_id, heartbeat)
            except LogUnavailable as error:
                logger.debug("heartbeats of others are missed for now: %s", error)
                await self._clock.sleep(TELL_EVERY_S)

    def _take(self, service_id: str, heartbeat: Heartbeat) -> None:
        self._leases.renew(service_id, self._clock.monotonic_s(), heartbeat.at_unix_ns)
        if heartbeat.kpis is not None:
            self._kpis.update(service_id, heartbeat.kpis, self._clock.unix_ns())
