"""Subscriptions that belong to a client of the APIs and not to an application instance: those of ETSI GS MEC 012.

A thin shell over `registry`, beside `subscriptions`, whose outboxes they share. Whom news of the radio network are for is
decided by who has them (`enablement_api.radio_information.feed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mec_platform.domain.quotas import Quotas
from mec_platform.domain.services import JsonText
from mec_platform.domain.subscriptions import RADIO_TOPICS, Expiry, Subscription, Topic
from mec_platform.registry import events
from mec_platform.registry.applications import find_running_app
from mec_platform.registry.errors import QuotaExceeded, UnknownSubscription
from mec_platform.registry.registry import Registry
from mec_platform.registry.state import RegistryState

NOTICE_NS = 30 * 10**9
"""An end is announced so long before: time for some attempts to deliver that, and for a subscriber to ask for more."""


class ClientSubscriptions:
    """Those of all clients of one MEC host. An `owner` of None in a question stands for whoever may see all."""

    def __init__(self, registry: Registry, quotas: Quotas | None = None) -> None:
        self._registry = registry
        self._quotas = quotas or Quotas()

    async def subscribe(self, subscription: Subscription) -> Subscription:
        """Adds a subscription under an id of the platform's making, which the returned one carries.

        Raises:
            UnknownAppInstance, StateConflict: it is to end with an application instance that is not there, or has ended.
            QuotaExceeded: the client has as many as an application instance may have.
        """
        subscription = replace(subscription, subscription_id=self._registry.new_id())

        def decide(state: RegistryState) -> events.Event:
            if subscription.app_instance_id:
                find_running_app(state, subscription.app_instance_id)
            limit = self._quotas.subscriptions_per_app
            if len(state.subscriptions_with(("client", subscription.owner))) >= limit:
                raise QuotaExceeded(f"client {subscription.owner!r}", limit, "subscriptions")
            return events.Subscribed(subscription)

        await self._registry.commit(decide)
        return subscription

    def get(self, owner: str | None, subscription_id: str) -> Subscription:
        """Raises UnknownSubscription, for one of another client too: ids are opaque."""
        return _find(self._registry.state, owner, subscription_id)

    def of(self, owner: str) -> list[Subscription]:
        """A client's subscriptions, oldest first."""
        state = self._registry.state
        return [state.subscriptions[each] for each in state.in_order(state.subscriptions_with(("client", owner)))]

    def about(self, topic: Topic) -> list[Subscription]:
        """The subscriptions of all clients to this topic, but for those whose application instance has ended."""
        state = self._registry.state
        found = [state.subscriptions[each] for each in state.subscriptions_with(("topic", topic.value))]
        return [
            each for each in found if not each.app_instance_id or not state.apps[each.app_instance_id].state.has_ended
        ]

    async def replace(
        self, owner: str | None, subscription: Subscription, check: Callable[[Subscription], None]
    ) -> Subscription:
        """Puts a subscription in the place of the one that has its id; id, topic and owner stay. `check` raises where it may
        not take the place of the one that is there.

        Raises:
            UnknownSubscription, UnknownAppInstance, StateConflict, and whatever `check` raises.
        """
        replaced = subscription

        def decide(state: RegistryState) -> events.Event | None:
            nonlocal replaced
            before = _find(state, owner, subscription.subscription_id)
            check(before)
            if subscription.app_instance_id:
                find_running_app(state, subscription.app_instance_id)
            replaced = replace(subscription, owner=before.owner)
            return events.SubscriptionReplaced(replaced)

        await self._registry.commit(decide)
        return replaced

    async def unsubscribe(self, owner: str | None, subscription_id: str) -> None:
        """Ends a subscription; what waits for it is dropped. Raises UnknownSubscription."""

        def decide(state: RegistryState) -> events.Event:
            return events.Unsubscribed(_find(state, owner, subscription_id).subscription_id)

        await self._registry.commit(decide)

    async def tell(self, message: JsonText, subscription_ids: Sequence[str]) -> None:
        """Puts a notification into the outboxes of those of these subscriptions that are still there."""

        def decide(state: RegistryState) -> events.Event | None:
            there = tuple(each for each in subscription_ids if each in state.subscriptions)
            return events.RadioTold(message, there) if there else None

        await self._registry.commit(decide)

    async def expire(self, subscription_id: str) -> None:
        """Announces the end of a subscription, or ends it, if it is time; otherwise nothing happens."""
        now_ns = self._registry.clock.unix_ns()

        def decide(state: RegistryState) -> events.Event | None:
            subscription = state.subscriptions.get(subscription_id)
            expiry = None if subscription is None else subscription.expiry
            if expiry is None or now_ns < expiry.next_unix_ns:
                return None
            if now_ns < expiry.deadline_unix_ns:
                return events.ExpiryNoticeGiven(subscription_id)
            return events.Unsubscribed(subscription_id)

        await self._registry.commit(decide)

    def expiry_at(self, deadline_unix_ns: int) -> Expiry:
        """An end at this time, announced `NOTICE_NS` before or, where it is less than twice that away, half-way to it.

        Raises:
            ValueError: that time is over.
        """
        left_ns = deadline_unix_ns - self._registry.clock.unix_ns()
        if left_ns <= 0:
            raise ValueError("expiryDeadline is over already")
        return Expiry(deadline_unix_ns=deadline_unix_ns, notice_unix_ns=deadline_unix_ns - min(NOTICE_NS, left_ns // 2))


def _find(state: RegistryState, owner: str | None, subscription_id: str) -> Subscription:
    subscription = state.subscriptions.get(subscription_id)
    if subscription is None or subscription.topic not in RADIO_TOPICS or owner not in (None, subscription.owner):
        raise UnknownSubscription(subscription_id)
    return subscription
