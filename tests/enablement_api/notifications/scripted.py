"""A clock, an outbox and a way out whose every step a test decides."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mec_platform.domain.subscriptions import Notification
from mec_platform.enablement_api.notifications.outcome import Outcome
from mec_platform.registry.errors import LogUnavailable


class SteppedClock:
    """Implements `Clock`; time jumps from one sleeper's end to the next when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._changed = asyncio.Condition()

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_ns(self) -> int:
        return int(self.now_s * 10**9)

    async def sleep(self, seconds: float) -> None:
        entry = (self.now_s + seconds, asyncio.Event())
        async with self._changed:
            self._sleepers.append(entry)
            self._changed.notify_all()
        try:
            await entry[1].wait()
        finally:
            self._sleepers.remove(entry)

    async def step(self) -> float:
        """Waits for a sleeper, wakes the one that is due first, and returns for how long time has jumped."""
        async with self._changed:
            await self._changed.wait_for(lambda: any(not wake.is_set() for _, wake in self._sleepers))
        due_s, wake = min((each for each in self._sleepers if not each[1].is_set()), key=lambda each: each[0])
        jumped_s = due_s - self.now_s
        self.now_s = due_s
        wake.set()
        return jumped_s


class ScriptedOutbox:
    """Implements `OutboxPort` in memory; `is_broken` makes its log refuse changes."""

    def __init__(self) -> None:
        self.outboxes: dict[str, list[Notification]] = defaultdict(list)
        self.dead: list[tuple[str, int, str]] = []
        self.settlements: list[Mapping[str, Sequence[int]]] = []
        self.is_broken = False
        self.settled = asyncio.Condition()

    def put(self, subscription_id: str, *sequences: int) -> None:
        notifications = [Notification(subscription_id=subscription_id, sequence=each) for each in sequences]
        self.outboxes[subscription_id] += notifications

    def undelivered(self) -> Iterable[str]:
        return [each for each, waiting in self.outboxes.items() if waiting]

    def waiting(self, subscription_id: str) -> Sequence[Notification]:
        return tuple(self.outboxes.get(subscription_id, ()))

    async def settle(self, delivered: Mapping[str, Sequence[int]]) -> None:
        self._write()
        for subscription_id, sequences in delivered.items():
            self._drop(subscription_id, sequences)
        async with self.settled:
            self.settlements.append(delivered)
            self.settled.notify_all()

    async def bury(self, subscription_id: str, sequence: int, reason: str) -> None:
        self._write()
        self._drop(subscription_id, [sequence])
        self.dead.append((subscription_id, sequence, reason))
        async with self.settled:
            self.settled.notify_all()

    async def until_empty(self) -> None:
        async with self.settled:
            await self.settled.wait_for(lambda: not any(self.outboxes.values()))

    def _write(self) -> None:
        if self.is_broken:
            raise LogUnavailable("the disk is full")

    def _drop(self, subscription_id: str, sequences: Sequence[int]) -> None:
        waiting = self.outboxes[subscription_id]
        self.outboxes[subscription_id] = [each for each in waiting if each.sequence not in sequences]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One notification on its way; the test says what becomes of it."""

    subscription_id: str
    sequence: int
    outcome: asyncio.Future[Outcome]

    def ends(self, outcome: Outcome) -> None:
        self.outcome.set_result(outcome)

    @property
    def name(self) -> tuple[str, int]:
        return self.subscription_id, self.sequence


class ScriptedTransmission:
    """Implements `Transmission`: a subscription called `host/name` is at that host."""

    def __init__(self) -> None:
        self._attempts: asyncio.Queue[Attempt] = asyncio.Queue()
        self.in_flight: list[Attempt] = []

    def host_of(self, subscription_id: str) -> str:
        return subscription_id.partition("/")[0]

    async def send(self, notification: Notification) -> Outcome:
        outcome = asyncio.get_running_loop().create_future()
        attempt = Attempt(notification.subscription_id, notification.sequence, outcome)
        self.in_flight.append(attempt)
        self._attempts.put_nowait(attempt)
        try:
            return await outcome
        finally:
            self.in_flight.remove(attempt)

    async def next(self) -> Attempt:
        return await self._attempts.get()

    async def take(self, number: int, outcome: Outcome) -> list[tuple[str, int]]:
        """Lets the next attempts end alike, one after the other, and names them."""
        names = []
        for _ in range(number):
            attempt = await self.next()
            attempt.ends(outcome)
            names.append(attempt.name)
        return names
