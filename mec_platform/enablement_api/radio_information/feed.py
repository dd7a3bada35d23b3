"""From what happens in the radio network to the outboxes of those who subscribed to it.

Whom it is for, and whether it is time to tell them of another measurement, is decided here (`radio.interest`, `radio.pacing`);
the registry makes it durable, and the notifier delivers it. Happenings reach the log in their order. While it is out of reach
they wait, `MOST_PENDING` of them; beyond that the oldest are lost, and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque

from aiohttp import web

from mec_platform.background import BackgroundTasks
from mec_platform.domain.services import JsonText
from mec_platform.domain.subscriptions import Subscription
from mec_platform.enablement_api.radio_information.notification_messages import write_happening
from mec_platform.enablement_api.radio_information.subscription_messages import to_interest
from mec_platform.enablement_api.radio_information.subscriptions import read_subscription
from mec_platform.radio.happenings import Happening
from mec_platform.radio.interest import RadioInterest, topic_of
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.pacing import Pacing
from mec_platform.registry.actor import current_actor
from mec_platform.registry.client_subscriptions import ClientSubscriptions
from mec_platform.registry.effects import Effect, EndSubscription
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.host import HostRegistry

logger = logging.getLogger(__name__)

MOST_PENDING = 1_000
RETRY_S = 1.0

_Told = tuple[JsonText, tuple[str, ...]]


class RadioFeed:
    """Between the start and the end of the application that it is attached to; before, nobody is told."""

    def __init__(self, host: HostRegistry, network: RadioNetwork) -> None:
        self._registry = host.registry
        self._subscriptions: ClientSubscriptions = host.client_subscriptions
        self._interests: dict[str, tuple[Subscription, RadioInterest]] = {}
        self._pacing = Pacing()
        self._pending: deque[_Told] = deque()
        self._something_waits = asyncio.Event()
        self._running = False
        self._tasks = BackgroundTasks()
        self.happened: Counter[str] = Counter()
        """What happened, by kind."""

        self.lost = 0
        """Happenings that subscribers were not told of because the log was out of reach for too long."""

        network.add_listener(self._hear)
        host.registry.add_listener(self._forget)

    def attach(self, app: web.Application) -> None:
        """Ties its life to that of the application that is served."""
        app.on_startup.append(self._on_startup)
        app.on_cleanup.append(self._on_cleanup)

    async def _on_startup(self, app: web.Application) -> None:
        self._running = True
        self._tasks.start("radio notifications", self._tell_on())

    async def _on_cleanup(self, app: web.Application) -> None:
        self._running = False
        await self._tasks.stop()

    def _hear(self, happening: Happening) -> None:
        topic = topic_of(happening)
        self.happened[type(happening).__name__] += 1
        if topic is None or not self._running:
            return
        told = tuple(
            each.subscription_id
            for each in self._subscriptions.about(topic)
            if self._interest(each).matches(happening) and self._pacing.admits(each.subscription_id, happening)
        )
        if not told:
            return
        if len(self._pending) >= MOST_PENDING:
            self._pending.popleft()
            self.lost += 1
        self._pending.append((write_happening(happening), told))
        self._something_waits.set()

    def _interest(self, subscription: Subscription) -> RadioInterest:
        known = self._interests.get(subscription.subscription_id)
        if known is None or known[0] is not subscription:
            known = (subscription, to_interest(read_subscription(subscription)))
            self._interests[subscription.subscription_id] = known
        return known[1]

    def _forget(self, effect: Effect) -> None:
        if isinstance(effect, EndSubscription):
            self._interests.pop(effect.subscription_id, None)

    async def _tell_on(self) -> None:
        """One after the other: several under way could fail one by one, and their subscribers would be told out of order."""
        current_actor.set("platform")
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while self._pending:
                message, told = self._pending[0]
                try:
                    await self._subscriptions.tell(message, told)
                except LogUnavailable as error:
                    logger.error("%d radio notifications wait for the log: %s", len(self._pending), error)
                    await self._registry.clock.sleep(RETRY_S)
                else:
                    self._drop(message)

    def _drop(self, message: JsonText) -> None:
        """Takes out what was told, unless so much came meanwhile that it was lost already."""
        if self._pending and self._pending[0][0] is message:
            self._pending.popleft()
