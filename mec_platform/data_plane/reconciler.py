"""Keeps the data planes of a host at what is wanted: applies everything at its start, after every change, and where it is gone.

The shell around `port`: it reads the desired state, hands it to each adapter in a thread, and tries again when one fails.
Adapters do not wait for each other. Changes that come while one is being applied become the next one, all together. It
knows nothing of where rules come from: who does calls `request`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from mec_platform.background import BackgroundTasks
from mec_platform.data_plane.port import DataPlane, DataPlaneError, DataPlaneRules, Refusal, RuleKind

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CHECK_INTERVAL_S = 30.0
"""An adapter that fails is asked again after 1, 2, 4 ... 60 s: soon where somebody is mending it, and never a burden. What
others remove, such as the restart of a firewall, is noticed within 30 s."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rules, and the revision of the state that they were taken from."""

    revision: int
    rules: DataPlaneRules


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneStatus:
    """How one data plane stands. `applied` is what it was given last; None before the first time.

    `is_current` is off while a change waits to be applied. `error` is why the last attempt failed, None where it did not.
    """

    name: str
    enforces: frozenset[RuleKind]
    applied: Wanted | None = None
    applied_unix_ns: int = 0
    is_current: bool = False
    refusals: tuple[Refusal, ...] = ()
    error: str | None = None
    failures_in_a_row: int = 0
    failures: int = 0

    def count(self, kind: RuleKind) -> int:
        """How many rules of a kind it has, those that it refused included; one that enforces nothing has them all."""
        if self.applied is None or (self.enforces and kind not in self.enforces):
            return 0
        return self.applied.rules.count(kind)


class Reconciler:
    """Drives data planes between `start` and `stop`. `read` gives what is wanted now; it is called in a thread."""

    def __init__(
        self,
        planes: Iterable[DataPlane],
        read: Callable[[], Wanted],
        *,
        sleep: Callable[[float], Awaitable[None]],
        unix_ns: Callable[[], int],
    ) -> None:
        self._lines = [_Line(plane) for plane in planes]
        self._read = read
        self._sleep = sleep
        self._unix_ns = unix_ns
        self._tasks = BackgroundTasks()

    def start(self) -> None:
        """Begins with applying everything: nothing is known of what the planes enforce by now."""
        for line in self._lines:
            logger.info("data plane %s enforces %s", line.plane.name, _kinds(line.plane.enforces))
            self._tasks.start(f"data plane {line.plane.name}", self._keep_current(line))
            self._tasks.start(f"check of data plane {line.plane.name}", self._keep_intact(line))
        self.request()

    async def stop(self) -> None:
        """Rules stay as they are; what is being applied is not waited for."""
        await self._tasks.stop()

    def request(self) -> None:
        """What is wanted may have changed; returns at once."""
        for line in self._lines:
            line.note_change()

    @property
    def statuses(self) -> tuple[PlaneStatus, ...]:
        """How each plane stands, in the order of the settings."""
        return tuple(line.status for line in self._lines)

    async def _keep_current(self, line: _Line) -> None:
        while True:
            await line.is_due.wait()
            line.is_due.clear()
            try:
                applied, refusals = await asyncio.to_thread(self._apply, line.plane)
            except DataPlaneError as error:
                line.note_failure(str(error))
                await self._sleep(_retry_after_s(line.status.failures_in_a_row))
                line.is_due.set()
            else:
                line.note_success(applied, refusals, self._unix_ns())

    async def _keep_intact(self, line: _Line) -> None:
        while True:
            await self._sleep(CHECK_INTERVAL_S)
            if not line.status.is_current:
                continue
            try:
                is_intact = await asyncio.to_thread(line.plane.is_intact)
            except DataPlaneError as error:
                # Applying them again finds the same, and is tried until it succeeds.
                logger.warning("data plane %s cannot be checked: %s", line.plane.name, error)
                is_intact = False
            if not is_intact and line.status.is_current:
                logger.warning("data plane %s has lost its rules; they are applied again", line.plane.name)
                line.note_change()

    def _apply(self, plane: DataPlane) -> tuple[Wanted, tuple[Refusal, ...]]:
        wanted = self._read()
        return wanted, plane.apply(wanted.rules)


class _Line:
    """One data plane and how it stands."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self.is_due = asyncio.Event()
        self.status = PlaneStatus(name=plane.name, enforces=plane.enforces)

    def note_change(self) -> None:
        self.status = replace(self.status, is_current=False)
        self.is_due.set()

    def note_failure(self, error: str) -> None:
        before = self.status
        if error != before.error:
            logger.warning("data plane %s: %s; it is tried again", before.name, error)
        self.status = replace(
            before, error=error, failures=before.failures + 1, failures_in_a_row=before.failures_in_a_row + 1
        )

    def note_success(self, applied: Wanted, refusals: tuple[Refusal, ...], now_unix_ns: int) -> None:
        before = self.status
        if before.error is not None:
            logger.warning("data plane %s works again", before.name)
        for each in refusals:
            if each not in before.refusals:
                logger.warning(
                    "data plane %s does not enforce %s rule %r of application instance %r: %s",
                    *(before.name, each.kind, each.rule_id, each.app_instance_id, each.reason),
                )
        self.status = replace(
            before,
            applied=applied,
            applied_unix_ns=now_unix_ns,
            is_current=not self.is_due.is_set(),
            refusals=refusals,
            error=None,
            failures_in_a_row=0,
        )


def _retry_after_s(failures: int) -> float:
    return min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 10), LONGEST_RETRY_S)


def _kinds(kinds: frozenset[RuleKind]) -> str:
    return " and ".join(f"{kind} rules" for kind in sorted(kinds)) or "nothing: rules are kept and shown"
