"""Ends application instances that did not confirm their end within its grace period (ETSI GS MEC 011 clause 5.2.3).

The shell around `Applications.end_overdue`, which decides; the waiting is that of `deadlines`.
"""

from __future__ import annotations

import logging

from mec_platform.registry import effects as to_do
from mec_platform.registry.applications import Applications
from mec_platform.registry.deadlines import Deadlines
from mec_platform.registry.registry import Registry

logger = logging.getLogger(__name__)


class Terminations:
    """Waits for deadlines from its making on; the registry, started later, names those that are left from an earlier run."""

    def __init__(self, registry: Registry, applications: Applications) -> None:
        self._applications = applications
        self._deadlines = Deadlines("graceful terminations", registry.clock, self._end)
        registry.add_listener(self._note)

    async def stop(self) -> None:
        """Waits for no deadline any more; they are kept in the registry's state."""
        await self._deadlines.stop()

    def _note(self, effect: to_do.Effect) -> None:
        match effect:
            case to_do.AwaitTermination(app_instance_id, deadline_unix_ns):
                self._deadlines.expect(app_instance_id, deadline_unix_ns)
            case to_do.ForgetTermination(app_instance_id):
                self._deadlines.forget(app_instance_id)

    async def _end(self, app_instance_id: str) -> None:
        if await self._applications.end_overdue(app_instance_id):
            logger.warning("application instance %s did not confirm its end in time", app_instance_id)
