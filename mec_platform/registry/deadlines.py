"""Waiting for times of day, by name and through restarts: what is due then is done by a function of the owner's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from mec_platform.background import BackgroundTasks
from mec_platform.registry.clock import Clock
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.timers import Timers

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
"""Deadlines are times of day, and the machine's clock may be set meanwhile: it is looked at again this often."""

RETRY_S = 1.0


class Deadlines:
    """Calls `act` with a name once its time has come, and again where it is still awaited afterwards: `act` decides by the
    state whether it is time. What the log does not take is tried again. `purpose` is what its tasks are called.
    """

    def __init__(self, purpose: str, clock: Clock, act: Callable[[str], Awaitable[object]]) -> None:
        self._purpose = purpose
        self._clock = clock
        self._act = act
        self._deadlines_ns: dict[str, int] = {}
        self._tasks = BackgroundTasks()
        self._timers = Timers(purpose, clock, self._tasks, self._look)

    async def stop(self) -> None:
        """Waits for nothing any more."""
        await self._tasks.stop()

    def expect(self, name: str, at_unix_ns: int) -> None:
        """Waits for this time, and for no other of this name."""
        self._deadlines_ns[name] = at_unix_ns
        self._wait(name)

    def forget(self, name: str) -> None:
        """Waits for this name no more."""
        self._deadlines_ns.pop(name, None)
        self._timers.cancel(name)

    def _wait(self, name: str) -> None:
        left_s = (self._deadlines_ns[name] - self._clock.unix_ns()) / 1e9
        self._timers.start(name, min(max(left_s, 0.0), LONGEST_WAIT_S))

    def _look(self, name: str) -> None:
        if self._deadlines_ns[name] > self._clock.unix_ns():
            self._wait(name)
        else:
            self._tasks.start(f"{self._purpose}: {name}", self._do(name, self._deadlines_ns[name]))

    async def _do(self, name: str, deadline_ns: int) -> None:
        try:
            await self._act(name)
        except LogUnavailable as error:
            logger.error("%s of %s cannot be dealt with yet: %s", self._purpose, name, error)
            if name in self._deadlines_ns:
                self._timers.start(name, RETRY_S)
            return
        if self._deadlines_ns.get(name) == deadline_ns:  # The clock was set back since it was looked at.
            self._wait(name)
