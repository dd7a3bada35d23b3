"""Subscriptions and their outboxes (ETSI GS MEC 011 clauses 5.2.6.2 and 7.2.3): who wants to be told, and what waits for them.

A thin shell over `registry`. What is put into an outbox, and when, is decided by `draft`; delivering it is the edge's
affair, which says here what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mec_platform.domain.quotas import Quotas
from mec_platform.domain.subscriptions import DeadLetter, Notification, Outbox, Subscription, Topic
from mec_platform.registry import events
from mec_platform.registry.applications import find_app, find_running_app
from mec_platform.registry.errors import QuotaExceeded, UnknownSubscription
from mec_platform.registry.registry import Registry
from mec_platform.registry.state import RegistryState


class Subscriptions:
    """The subscriptions of all application instances of one MEC host."""

    def __init__(self, registry: Registry, quotas: Quotas | None = None) -> None:
        self._registry = registry
        self._quotas = quotas or Quotas()

    async def subscribe(self, subscription: Subscription) -> Subscription:
        """Adds a subscription under an id of the platform's making, which the returned one carries.

        Raises:
            UnknownAppInstance: there is nobody to subscribe.
            StateConflict: the application instance has ended.
            QuotaExceeded: it has as many subscriptions as an instance may have.
        """
        subscription = replace(subscription, subscription_id=self._registry.new_id())

        def decide(state: RegistryState) -> events.Event:
            app = find_running_app(state, subscription.app_instance_id)
            limit = self._quotas.subscriptions_per_app
            if len(state.subscriptions_by.get(("app", app.app_instance_id), ())) >= limit:
                raise QuotaExceeded(f"application instance {app.app_instance_id!r}", limit, "subscriptions")
            return events.Subscribed(subscription)

        await self._registry.commit(decide)
        return subscription

    def get(self, app_instance_id: str, topic: Topic, subscription_id: str) -> Subscription:
        """Raises UnknownAppInstance or UnknownSubscription."""
        return _find(self._registry.state, app_instance_id, topic, subscription_id)

    def of(self, app_instance_id: str, topic: Topic) -> list[Subscription]:
        """An instance's subscriptions to a topic, oldest first. Raises UnknownAppInstance."""
        state = self._registry.state
        find_app(state, app_instance_id)
        return [each for each in state.subscriptions_of(app_instance_id) if each.topic is topic]

    async def unsubscribe(self, app_instance_id: str, topic: Topic, subscription_id: str) -> None:
        """Ends a subscription; what waits for it is dropped. Raises UnknownAppInstance or UnknownSubscription."""

        def decide(state: RegistryState) -> events.Event:
            return events.Unsubscribed(_find(state, app_instance_id, topic, subscription_id).subscription_id)

        await self._registry.commit(decide)

    def find(self, subscription_id: str) -> Subscription | None:
        """A subscription of whatever application, for who delivers."""
        return self._registry.state.subscriptions.get(subscription_id)

    # Outboxes

    def waiting(self, subscription_id: str) -> tuple[Notification, ...]:
        """What has not been delivered, oldest first; nothing where there is no such subscription."""
        return self._registry.state.outboxes.get(subscription_id, _EMPTY).waiting

    def undelivered(self) -> list[str]:
        """Ids of the subscriptions for which something waits."""
        return [each for each, outbox in self._registry.state.outboxes.items() if outbox.waiting]

    async def settle(self, delivered: Mapping[str, Sequence[int]]) -> None:
        """Subscribers took what waited for them: sequences of each subscription."""

        def decide(state: RegistryState) -> events.Event | None:
            known = {each: tuple(sequences) for each, sequences in delivered.items() if each in state.outboxes}
            return events.NotificationsSettled(known) if known else None

        await self._registry.commit(decide)

    async def bury(self, subscription_id: str, sequence: int, reason: str) -> None:
        """Makes a dead letter of a notification that waits; nothing happens where it does not wait any more."""

        def decide(state: RegistryState) -> events.Event | None:
            waiting = state.outboxes.get(subscription_id, _EMPTY).waiting
            known = any(each.sequence == sequence for each in waiting)
            return events.NotificationBuried(subscription_id, sequence, reason) if known else None

        await self._registry.commit(decide)

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters, by subscription, oldest first."""
        state = self._registry.state
        return [letter for each in state.in_order(state.outboxes) for letter in state.outboxes[each].dead]

    async def revive(self, subscription_id: str) -> None:
        """Lets the dead letters of a subscription wait again, in their old order. Raises UnknownSubscription."""

        def decide(state: RegistryState) -> events.Event | None:
            return events.DeadLettersRevived(subscription_id) if _outbox(state, subscription_id).dead else None

        await self._registry.commit(decide)

    async def drop_dead_letters(self, subscription_id: str) -> None:
        """Forgets the dead letters of a subscription. Raises UnknownSubscription."""

        def decide(state: RegistryState) -> events.Event | None:
            return events.DeadLettersDropped(subscription_id) if _outbox(state, subscription_id).dead else None

        await self._registry.commit(decide)


_EMPTY = Outbox()


def _outbox(state: RegistryState, subscription_id: str) -> Outbox:
    if subscription_id not in state.outboxes:
        raise UnknownSubscription(subscription_id)
    return state.outboxes[subscription_id]


def _find(state: RegistryState, app_instance_id: str, topic: Topic, subscription_id: str) -> Subscription:
    find_app(state, app_instance_id)
    subscription = state.subscriptions.get(subscription_id)
    if subscription is None or (subscription.app_instance_id, subscription.topic) != (app_instance_id, topic):
        raise UnknownSubscription(subscription_id)
    return subscription
