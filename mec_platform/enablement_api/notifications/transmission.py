"""Which way a notification goes: to the callback or over the WebSocket that its subscriber asked for."""

from __future__ import annotations

from collections.abc import Callable

from yarl import URL

from mec_platform.domain.subscriptions import Notification, Subscription
from mec_platform.enablement_api.notifications.callbacks import CallbackSender, Message
from mec_platform.enablement_api.notifications.messages import write_body
from mec_platform.enablement_api.notifications.outcome import Away, Outcome, Rejected
from mec_platform.enablement_api.notifications.websockets import NotificationSockets

GONE = Rejected("the subscription has ended")


class SubscriberTransmission:
    """Implements `delivery.Transmission`. `find` gives the subscription of an id, None where it has ended.

    Of several replicas the one that `leads` posts to callbacks; a WebSocket is served by the one that it is connected to.
    """

    def __init__(
        self,
        find: Callable[[str], Subscription | None],
        callbacks: CallbackSender,
        sockets: NotificationSockets,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._find = find
        self._leads = leads
        self._callbacks = callbacks
        self._sockets = sockets

    def host_of(self, subscription_id: str) -> str:
        """The origin of a callback; every WebSocket is one of its own."""
        subscription = self._find(subscription_id)
        return GONE.reason if subscription is None else target_of(subscription)

    async def send(self, notification: Notification) -> Outcome:
        """One attempt."""
        subscription = self._find(notification.subscription_id)
        if subscription is None:
            return GONE
        message = Message(id=message_id(notification), body=write_body(subscription, notification))
        if subscription.delivery.callback_uri is None:
            return await self._sockets.send(notification.subscription_id, message)
        if not self._leads():
            return Away()
        return await self._callbacks.send(subscription.delivery.callback_uri, message)


def target_of(subscription: Subscription) -> str:
    """Where notifications go, without what may be secret in a callback: the rest of its URI."""
    uri = subscription.delivery.callback_uri
    return f"WebSocket of {subscription.subscription_id}" if uri is None else str(URL(uri).origin())


def message_id(notification: Notification) -> str:
    """The same for every attempt, every life of the platform and every revival."""
    return f"{notification.subscription_id}:{notification.sequence}"
