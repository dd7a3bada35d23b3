"""The durable outbox on its way out: who is sent what next, when, and what follows from how it went.

One logical queue for each subscription: order is kept and at most one of its notifications is on its way. Queues take
turns for slots; each target host has its own, so a dead or slow one delays nobody else. A subscription that waits for
nothing costs nothing here; there is no polling: `wake` says that something is in an outbox.

Counterparts: `OutboxPort` holds what waits, durably; `Send` makes one attempt. Delivery is at least once: what was
taken is settled in the outbox a moment later, together with others (`settlement`), and a crash in between repeats it.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol, assert_never

from mec_platform.background import BackgroundTasks
from mec_platform.domain.subscriptions import Notification
from mec_platform.enablement_api.notifications.backoff import choose_delay_s
from mec_platform.enablement_api.notifications.outcome import Away, Delivered, Failed, Outcome, Rejected
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.settlement import Settlement
from mec_platform.registry.clock import Clock
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.timers import Timers

logger = logging.getLogger(__name__)

_UNTIL_WOKEN = math.inf

TURN = 16
"""Notifications that one subscription may send before others at the same host have their turn."""

FIRST_WINDOW = 2
"""Slots of a host that nothing is known of; each success adds one, so a black hole never holds many."""

MOST_IDLE_HOSTS = 4096
"""Hosts that are remembered while nothing waits for them, so that they need not prove themselves anew."""


class OutboxPort(Protocol):
    """What waits, durably. Changes may raise LogUnavailable; `registry.subscriptions` implements it."""

    def undelivered(self) -> Iterable[str]:
        """Ids of subscriptions for which something waits."""

    def waiting(self, subscription_id: str) -> Sequence[Notification]:
        """Oldest first; empty for a subscription that is unknown or gone."""

    async def settle(self, delivered: Mapping[str, Sequence[int]]) -> object:
        """Drops what was delivered: sequences of each subscription; those that do not wait any more are ignored."""

    async def bury(self, subscription_id: str, sequence: int, reason: str) -> object:
        """Makes a notification a dead letter, so that the next one can go; nothing where it does not wait any more."""


class Transmission(Protocol):
    """How notifications leave."""

    def host_of(self, subscription_id: str) -> str:
        """What subscriptions share slots by: the origin of a callback; None of it may be secret."""

    async def send(self, notification: Notification) -> Outcome:
        """One attempt; raises nothing but what is a programming error."""


Observer = Callable[[Notification, Outcome, float], None]
"""Told of every attempt: the notification, what became of it, and how many seconds it took."""


@dataclass(slots=True)
class _Queue:
    """One subscription with something to send. `since_s`: when its head became the head; failures are those of the head."""

    subscription_id: str
    host: str
    since_s: float
    failures: int = 0
    first_attempt_s: float | None = None
    is_gone: bool = False
    was_woken: bool = False


@dataclass(slots=True)
class _Host:
    """One target host: queues whose turn will come, and how many may have it at once."""

    window: int = FIRST_WINDOW
    in_flight: int = 0
    ready: deque[_Queue] = field(default_factory=deque)
    queues: int = 0


class NotificationDelivery:
    """Runs between `start` and `stop`; `stop` before the outbox stops, so that what was delivered is settled."""

    def __init__(
        self,
        outbox: OutboxPort,
        transmission: Transmission,
        *,
        clock: Clock,
        die: Random,
        settings: DeliverySettings,
        observe: Observer = lambda notification, outcome, seconds: None,
    ) -> None:
        self._outbox = outbox
        self._transmission = transmission
        self._clock = clock
        self._die = die
        self._settings = settings
        self._observe = observe
        self._tasks = BackgroundTasks()
        self._settlement = Settlement(outbox.settle, clock, settings.settle_every_s, self._tasks)
        self._retries = Timers("notification retries", clock, self._tasks, self._retry)
        self._queues: dict[str, _Queue] = {}
        self._hosts: dict[str, _Host] = {}
        self._in_flight = 0
        self._held_back: dict[str, None] = {}
        self._running = False

    def start(self) -> None:
        """Takes up what waits in the outbox, such as what an earlier life of the platform left."""
        self._running = True
        for subscription_id in self._outbox.undelivered():
            self.wake(subscription_id)

    async def stop(self) -> None:
        """Breaks off what is on its way and settles what was delivered."""
        self._running = False
        await self._tasks.stop()
        await self._settlement.flush()

    @property
    def oldest_wait_s(self) -> float:
        """How long the head that has waited longest has been one; 0 where nothing waits."""
        now_s = self._clock.monotonic_s()
        return max((now_s - queue.since_s for queue in self._queues.values()), default=0.0)

    def wake(self, subscription_id: str) -> None:
        """Something waits for this subscription, or somebody is there to take it now. Never blocks."""
        if not self._running:
            return
        queue = self._queues.get(subscription_id)
        if queue is not None:
            queue.was_woken = True
        else:
            host = self._transmission.host_of(subscription_id)
            queue = _Queue(subscription_id, host, self._clock.monotonic_s())
            self._queues[subscription_id] = queue
            if host not in self._hosts:
                self._forget_idle_hosts()
                self._hosts[host] = _Host()
            self._hosts[host].queues += 1
            self._make_ready(queue)

    def wake_now(self, subscription_id: str) -> None:
        """As `wake`, and a wait after a failed attempt is over: its target has just shown itself."""
        self.wake(subscription_id)
        if self._retries.cancel(subscription_id):
            self._retry(subscription_id)

    def forget(self, subscription_id: str) -> None:
        """The subscription is gone; what is on its way is not called back."""
        self._retries.cancel(subscription_id)
        self._settlement.forget(subscription_id)
        queue = self._queues.get(subscription_id)
        if queue is not None:
            queue.is_gone = True
            self._drop(queue)

    # Turns

    def _make_ready(self, queue: _Queue) -> None:
        self._hosts[queue.host].ready.append(queue)
        self._fill(queue.host)

    def _fill(self, name: str) -> None:
        """Starts turns at this host as long as it and the whole have room."""
        host = self._hosts[name]
        while host.ready and host.in_flight < host.window:
            if self._in_flight >= self._settings.in_flight:
                self._held_back[name] = None
                return
            queue = host.ready.popleft()
            if queue.is_gone:
                continue
            host.in_flight += 1
            self._in_flight += 1
            self._tasks.start(f"notifications of {queue.subscription_id}", self._take_turn(queue, host))

    async def _take_turn(self, queue: _Queue, host: _Host) -> None:
        queue.was_woken = False
        # What stands unless the turn ends well: a defect must not become a loop without a pause.
        pause_s: float | None = self._settings.longest_delay_s
        try:
            for _ in range(TURN):
                notification = self._head(queue)
                pause_s = None if notification is None else await self._attempt(queue, host, notification)
                if notification is None or pause_s is not None:
                    break
        finally:
            host.in_flight -= 1
            self._in_flight -= 1
            if self._running:
                self._end_turn(queue, pause_s)
                self._fill_others(queue.host)

    def _end_turn(self, queue: _Queue, pause_s: float | None) -> None:
        if queue.is_gone:
            return
        if self._head(queue) is None or (pause_s == _UNTIL_WOKEN and not queue.was_woken):
            self._drop(queue)
        elif pause_s is None or pause_s == _UNTIL_WOKEN:
            self._hosts[queue.host].ready.append(queue)
        else:
            self._retries.start(queue.subscription_id, pause_s)

    async def _attempt(self, queue: _Queue, host: _Host, notification: Notification) -> float | None:
        """Sends the head once. Returns None to go on, or how long this subscription pauses."""
        began_s = self._clock.monotonic_s()
        if queue.first_attempt_s is None:
            queue.first_attempt_s = began_s
        outcome = await self._transmission.send(notification)
        now_s = self._clock.monotonic_s()
        self._observe(notification, outcome, now_s - began_s)
        match outcome:
            case Delivered():
                host.window = min(host.window + 1, self._settings.in_flight_per_host)
                self._settlement.note(queue.subscription_id, notification.sequence)
                _take_next_head(queue, now_s)
                return None
            case Away():
                return _UNTIL_WOKEN
            case Rejected(reason):
                return await self._give_up(queue, notification, reason)
            case Failed(reason, unreachable, asked_s):
                queue.failures += 1
                # One prober is enough where nobody answers; the others would only wait for their time-outs.
                host.window = 1 if unreachable else host.window
                settings = self._settings
                if queue.failures >= settings.attempts or now_s - queue.first_attempt_s >= settings.longest_s:
                    return await self._give_up(
                        queue, notification, f"given up after {queue.failures} attempts: {reason}"
                    )
                return choose_delay_s(queue.failures, asked_s, settings, self._die)
            case _:
                assert_never(outcome)

    async def _give_up(self, queue: _Queue, notification: Notification, reason: str) -> float | None:
        try:
            await self._outbox.bury(queue.subscription_id, notification.sequence, reason)
        except LogUnavailable as error:
            logger.error("a notification that cannot be delivered is kept for now: %s", error)
            return self._settings.longest_delay_s
        logger.warning(
            "subscription %s: notification %d is dead: %s", queue.subscription_id, notification.sequence, reason
        )
        _take_next_head(queue, self._clock.monotonic_s())
        return None

    def _fill_others(self, name: str) -> None:
        held_back, self._held_back = self._held_back, {}
        # Those that were held back first: they have waited for this slot the longest.
        for each in (*held_back, name):
            if each in self._hosts:
                self._fill(each)

    def _drop(self, queue: _Queue) -> None:
        del self._queues[queue.subscription_id]
        self._hosts[queue.host].queues -= 1

    def _forget_idle_hosts(self) -> None:
        if len(self._hosts) >= MOST_IDLE_HOSTS:
            self._hosts = {name: host for name, host in self._hosts.items() if host.queues or host.in_flight}

    def _retry(self, subscription_id: str) -> None:
        queue = self._queues.get(subscription_id)
        if queue is not None:
            self._make_ready(queue)

    def _head(self, queue: _Queue) -> Notification | None:
        if queue.is_gone:
            return None
        settled = self._settlement.noted(queue.subscription_id)
        waiting = self._outbox.waiting(queue.subscription_id)
        return next((each for each in waiting if each.sequence not in settled), None)


def _take_next_head(queue: _Queue, now_s: float) -> None:
    queue.since_s, queue.failures, queue.first_attempt_s = now_s, 0, None
