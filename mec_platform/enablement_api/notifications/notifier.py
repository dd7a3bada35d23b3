"""Notifications of one MEC host, composed: what the registry puts into outboxes goes to callbacks and WebSockets.

Counterparts: `registry.subscriptions` keeps subscriptions and outboxes; `resources` lets applications subscribe.
"""

from __future__ import annotations

from contextvars import Context
from random import Random

from aiohttp import web
from prometheus_client import CollectorRegistry

from mec_platform.enablement_api.notifications.callbacks import CallbackSender
from mec_platform.enablement_api.notifications.delivery import NotificationDelivery
from mec_platform.enablement_api.notifications.metrics import NotificationMetrics
from mec_platform.enablement_api.notifications.resolver import LookUp, look_up
from mec_platform.enablement_api.notifications.settings import DeliverySettings
from mec_platform.enablement_api.notifications.signing import signer
from mec_platform.enablement_api.notifications.targets import CallbackPolicy
from mec_platform.enablement_api.notifications.transmission import SubscriberTransmission
from mec_platform.enablement_api.notifications.websockets import NotificationSockets
from mec_platform.registry.effects import DeliverNotifications, Effect, EndSubscription
from mec_platform.registry.registry import Registry
from mec_platform.registry.subscriptions import Subscriptions


class Notifier:
    """Delivers between `start` and `stop`; until then, and while it is stopped, notifications wait in their outboxes."""

    def __init__(
        self,
        registry: Registry,
        subscriptions: Subscriptions,
        *,
        policy: CallbackPolicy,
        settings: DeliverySettings,
        collectors: CollectorRegistry,
        die: Random,
        look_up: LookUp = look_up,
    ) -> None:
        self.policy = policy
        self.sockets = NotificationSockets(settings, self._hear_of_connection)
        self._registry = registry
        self._subscriptions = subscriptions
        self._settings = settings
        self._die = die
        self._sign = signer(lambda: registry.state.signing_keys, self._unix_s)
        self._look_up = look_up
        self._delivery: NotificationDelivery | None = None
        self._metrics = NotificationMetrics(
            collectors,
            lambda: registry.state.outboxes.values(),
            lambda: self._delivery.oldest_wait_s if self._delivery else 0.0,
            lambda: self.sockets.connected,
        )
        registry.add_listener(self._hear)

    def attach(self, app: web.Application) -> None:
        """Ties the life of delivery to that of the application that is served."""
        app.on_startup.append(self._on_startup)
        app.on_shutdown.append(self._on_shutdown)
        app.on_cleanup.append(self._on_cleanup)

    async def _on_startup(self, app: web.Application) -> None:
        self._callbacks = CallbackSender(
            self.policy, self._settings, self._unix_s, sign=self._sign, look_up=self._look_up
        )
        self._delivery = NotificationDelivery(
            self._subscriptions,
            SubscriberTransmission(self._subscriptions.find, self._callbacks, self.sockets, self._leads),
            clock=self._registry.clock,
            die=self._die,
            settings=self._settings,
            observe=self._metrics.observe,
        )
        self._delivery.start()

    async def _on_shutdown(self, app: web.Application) -> None:
        # Before the server waits for its requests to end: an open WebSocket is one that does not end by itself.
        await self.sockets.stop()

    async def _on_cleanup(self, app: web.Application) -> None:
        if self._delivery is not None:
            await self._delivery.stop()
            await self._callbacks.close()

    def _unix_s(self) -> float:
        return self._registry.clock.unix_ns() / 1e9

    def _leads(self) -> bool:
        return self._registry.leadership.is_leader

    def _hear(self, effect: Effect) -> None:
        if self._delivery is None:
            return
        match effect:
            case DeliverNotifications(subscription_id) if self._leads() or self.sockets.has(subscription_id):
                self._delivery.wake(subscription_id)
            case EndSubscription(subscription_id):
                self._delivery.forget(subscription_id)
                self.sockets.close(subscription_id)

    def _hear_of_connection(self, subscription_id: str) -> None:
        if self._delivery is not None:
            # In a context of its own: what follows is the platform's doing, not that of the client who connected.
            Context().run(self._delivery.wake_now, subscription_id)
