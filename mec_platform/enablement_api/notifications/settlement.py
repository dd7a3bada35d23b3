"""Tells the outbox what was delivered, many at a time: delivery must not write as often to the log as changes do.

Between a delivery and its settlement the notification still waits in the outbox; `noted` says which to pass over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mec_platform.background import BackgroundTasks
from mec_platform.registry.clock import Clock
from mec_platform.registry.errors import LogUnavailable

logger = logging.getLogger(__name__)

Settle = Callable[[Mapping[str, Sequence[int]]], Awaitable[object]]

PAUSE_AFTER_FAILURE_S = 1.0


class Settlement:
    """Sequences that were delivered and are not known to be settled, by subscription."""

    def __init__(self, settle: Settle, clock: Clock, every_s: float, tasks: BackgroundTasks) -> None:
        self._settle = settle
        self._clock = clock
        self._every_s = every_s
        self._tasks = tasks
        self._noted: dict[str, list[int]] = {}
        self._is_writing = False

    def note(self, subscription_id: str, sequence: int) -> None:
        """This was delivered; the outbox will be told within `every_s`."""
        self._noted.setdefault(subscription_id, []).append(sequence)
        if not self._is_writing:
            self._is_writing = True
            self._tasks.start("notification settlement", self._write())

    def noted(self, subscription_id: str) -> Sequence[int]:
        """What must not be delivered again though it may still be in the outbox."""
        return self._noted.get(subscription_id, ())

    def forget(self, subscription_id: str) -> None:
        """The subscription is gone, and its outbox with it."""
        self._noted.pop(subscription_id, None)

    async def flush(self) -> None:
        """Settles now; what the log does not take will be delivered once more by the platform's next life."""
        try:
            await self._settle_noted()
        except LogUnavailable as error:
            logger.warning("delivered notifications may be repeated after the restart: %s", error)

    async def _write(self) -> None:
        try:
            while self._noted:
                await self._clock.sleep(self._every_s)
                try:
                    await self._settle_noted()
                except LogUnavailable as error:
                    logger.error("delivered notifications are not settled for now: %s", error)
                    await self._clock.sleep(PAUSE_AFTER_FAILURE_S)
        finally:
            self._is_writing = False

    async def _settle_noted(self) -> None:
        """Only what was written is forgotten: more may be delivered while the log is busy."""
        written = {subscription_id: tuple(sequences) for subscription_id, sequences in self._noted.items()}
        if not written:
            return
        await self._settle(written)
        for subscription_id, sequences in written.items():
            rest = self._noted.get(subscription_id, [])[len(sequences) :]
            if rest:
                self._noted[subscription_id] = rest
            else:
                self._noted.pop(subscription_id, None)
