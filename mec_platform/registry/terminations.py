"""Ends application instances that did not confirm their end within its grace period (ETSI GS MEC 011 clause 5.2.3).

The shell around `Applications.end_overdue`, which decides; here is only the waiting, through restarts too.
"""

from __future__ import annotations

import logging

from mec_platform.background import BackgroundTasks
from mec_platform.registry import effects as to_do
from mec_platform.registry.applications import Applications
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.registry import Registry
from mec_platform.registry.timers import Timers

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
"""Deadlines are times of day, and the machine's clock may be set meanwhile: it is looked at again this often."""

RETRY_S = 1.0


class Terminations:
    """Waits for deadlines from its making on; the registry, started later, names those that are left from an earlier run."""

    def __init__(self, registry: Registry, applications: Applications) -> None:
        self._clock = registry.clock
        self._applications = applications
        self._deadlines_ns: dict[str, int] = {}
        self._tasks = BackgroundTasks()
        self._timers = Timers("graceful terminations", self._clock, self._tasks, self._look)
        registry.add_listener(self._note)

    async def stop(self) -> None:
        """Waits for no deadline any more; they are kept in the registry's state."""
        await self._tasks.stop()

    def _note(self, effect: to_do.Effect) -> None:
        match effect:
            case to_do.AwaitTermination(app_instance_id, deadline_unix_ns):
                self._deadlines_ns[app_instance_id] = deadline_unix_ns
                self._wait(app_instance_id)
            case to_do.ForgetTermination(app_instance_id):
                self._deadlines_ns.pop(app_instance_id, None)
                self._timers.cancel(app_instance_id)

    def _wait(self, app_instance_id: str) -> None:
        left_s = (self._deadlines_ns[app_instance_id] - self._clock.unix_ns()) / 1e9
        self._timers.start(app_instance_id, min(max(left_s, 0.0), LONGEST_WAIT_S))

    def _look(self, app_instance_id: str) -> None:
        if self._deadlines_ns[app_instance_id] > self._clock.unix_ns():
            self._wait(app_instance_id)
        else:
            self._tasks.start(f"end of {app_instance_id}", self._end(app_instance_id))

    async def _end(self, app_instance_id: str) -> None:
        try:
            ended = await self._applications.end_overdue(app_instance_id)
        except LogUnavailable as error:
            logger.error("application instance %s cannot be ended yet: %s", app_instance_id, error)
            if app_instance_id in self._deadlines_ns:
                self._timers.start(app_instance_id, RETRY_S)
            return
        if ended:
            logger.warning("application instance %s did not confirm its end in time", app_instance_id)
        elif app_instance_id in self._deadlines_ns:  # The clock was set back since it was looked at.
            self._wait(app_instance_id)
