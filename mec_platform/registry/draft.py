"""A registry state while it is being changed: keeps the indexes, the outboxes and the list of effects in step with the records.

Who is told of a change is decided here: the outboxes are part of the state, so a notification is as durable as the event
that caused it, and replaying a log fills them again. `transitions` is its only user and knows what each event means.
"""

from __future__ import annotations

from collections.abc import Collection

from mec_platform.domain.applications import AppInstance
from mec_platform.domain.services import JsonText, ServiceInfo
from mec_platform.domain.subscriptions import (
    ChangeType,
    DeadLetter,
    ExpiryAnnounced,
    Notification,
    Outbox,
    ServiceReference,
    Subscription,
    TerminationAnnounced,
    Topic,
)
from mec_platform.registry import effects as to_do
from mec_platform.registry.state import (
    IndexDraft,
    RegistryState,
    app_keys,
    keys_of_interest,
    service_keys,
    subscription_keys,
)

MOST_WAITING = 1000
"""Notifications that wait for one subscriber; what is older becomes a dead letter. At one a second: a quarter of an hour."""

MOST_DEAD = 100
"""Dead letters that are kept of one subscription; the oldest go first."""

OVERFLOW = f"more than {MOST_WAITING} notifications were waiting"


class Draft:
    """A state being changed. Its maps are persistent: nothing that was handed out changes with it."""

    def __init__(self, state: RegistryState) -> None:
        self.apps = state.apps
        self.services = state.services.mutate()
        self.subscriptions = state.subscriptions
        self.outboxes = state.outboxes
        self.clients = state.clients
        self.signing_keys = state.signing_keys
        self.join_permits = state.join_permits
        self.peers = state.peers
        self.registry_id = state.registry_id
        self.revision = state.revision
        self.now_unix_ns = 0
        self.effects: list[to_do.Effect] = []
        self._order = state.order.mutate()
        self._services_by = IndexDraft(state.services_by)
        self._subscriptions_by = IndexDraft(state.subscriptions_by)
        self._apps_by = IndexDraft(state.apps_by)
        self._references: dict[str, list[ServiceReference]] = {}

    def finish(self) -> RegistryState:
        return RegistryState(
            self.apps,
            self.services.finish(),
            self.subscriptions,
            self.outboxes,
            self.clients,
            self.signing_keys,
            self.join_permits,
            self.peers,
            self._order.finish(),
            self.revision,
            self.registry_id,
            self._services_by.finish(),
            self._subscriptions_by.finish(),
            self._apps_by.finish(),
        )

    def do(self, *effects: to_do.Effect) -> None:
        self.effects += effects

    # Application instances

    def put_app(self, app: AppInstance) -> None:
        if app.app_instance_id not in self.apps:
            self._order[app.app_instance_id] = self.revision
            self._apps_by.add(app_keys(app), app.app_instance_id)
        self.apps = self.apps.set(app.app_instance_id, app)

    def drop_app(self, app_instance_id: str) -> None:
        self._apps_by.remove(app_keys(self.apps[app_instance_id]), app_instance_id)
        self.apps = self.apps.delete(app_instance_id)
        del self._order[app_instance_id]
        if app_instance_id in self.clients:
            self.drop_client(app_instance_id)

    def drop_client(self, client_id: str) -> None:
        self.clients = self.clients.delete(client_id)
        ids = self._subscriptions_by.get(("client", client_id))
        for subscription_id in sorted(ids, key=self._order.__getitem__):
            self.drop_subscription(subscription_id)

    # Services

    def put_service(self, service: ServiceInfo) -> None:
        before = self.services.get(service.service_id)
        if before is None:
            self._order[service.service_id] = self.revision
        if before is None or service_keys(before) != service_keys(service):
            if before is not None:
                self._services_by.remove(service_keys(before), before.service_id)
            self._services_by.add(service_keys(service), service.service_id)
        self.services[service.service_id] = service
        if service.liveness_interval_s is None:
            self.do(to_do.ForgetHeartbeats(service.service_id))
        else:
            # A suspended service is still expected to come back with a heartbeat, so it keeps its lease's interval.
            self.do(
                to_do.ExpectHeartbeats(
                    service.service_id, service.liveness_interval_s, service.evict_after_intervals or 0
                )
            )

    def drop_service(self, service: ServiceInfo) -> None:
        self._services_by.remove(service_keys(service), service.service_id)
        del self.services[service.service_id]
        del self._order[service.service_id]
        self.do(to_do.ForgetHeartbeats(service.service_id))
        self.announce(ChangeType.REMOVED, service)

    def drop_services_of(self, app_instance_id: str) -> None:
        ids = self._services_by.get(("app", app_instance_id))
        for service_id in sorted(ids, key=self._order.__getitem__):
            self.drop_service(self.services[service_id])

    def drop_services_from(self, peer: str) -> None:
        ids = self._services_by.get(("origin", peer))
        for service_id in sorted(ids, key=self._order.__getitem__):
            self.drop_service(self.services[service_id])

    # Subscriptions

    def put_subscription(self, subscription: Subscription) -> None:
        subscription_id = subscription.subscription_id
        self._order[subscription_id] = self.revision
        self.subscriptions = self.subscriptions.set(subscription_id, subscription)
        self.outboxes = self.outboxes.set(subscription_id, Outbox())
        self._subscriptions_by.add(subscription_keys(subscription), subscription_id)
        self._await_expiry(None, subscription)

    def replace_subscription(self, subscription: Subscription) -> None:
        subscription_id = subscription.subscription_id
        before = self.subscriptions[subscription_id]
        self._subscriptions_by.remove(subscription_keys(before), subscription_id)
        self._subscriptions_by.add(subscription_keys(subscription), subscription_id)
        self.subscriptions = self.subscriptions.set(subscription_id, subscription)
        self._await_expiry(before, subscription)
        if self.outboxes[subscription_id].waiting:
            self.do(to_do.DeliverNotifications(subscription_id))  # It may be another way that they go now.

    def _await_expiry(self, before: Subscription | None, after: Subscription) -> None:
        was = None if before is None else before.expiry
        if after.expiry is not None and after.expiry != was:
            self.do(to_do.AwaitExpiry(after.subscription_id, after.expiry.next_unix_ns))
        elif after.expiry is None and was is not None:
            self.do(to_do.ForgetExpiry(after.subscription_id))

    def drop_subscription(self, subscription_id: str) -> None:
        subscription = self.subscriptions[subscription_id]
        self._subscriptions_by.remove(subscription_keys(subscription), subscription_id)
        self.subscriptions = self.subscriptions.delete(subscription_id)
        self.outboxes = self.outboxes.delete(subscription_id)
        del self._order[subscription_id]
        self.do(to_do.EndSubscription(subscription_id))
        if subscription.expiry is not None:
            self.do(to_do.ForgetExpiry(subscription_id))

    def subscriptions_of(self, app_instance_id: str, topic: Topic | None = None) -> list[str]:
        ids = self._subscriptions_by.get(("app", app_instance_id))
        wanted = [each for each in ids if topic in (None, self.subscriptions[each].topic)]
        return sorted(wanted, key=self._order.__getitem__)

    # Notifications

    def announce(self, change: ChangeType, service: ServiceInfo) -> None:
        """Notes the change for every subscription that it is for; `close_event` makes one notification of all of them."""
        self.do(to_do.AnnounceService(change, service, self.revision))
        for key in keys_of_interest(service):
            for subscription_id in self._subscriptions_by.get(key):
                subscription = self.subscriptions[subscription_id]
                subscriber = self.apps[subscription.app_instance_id]
                if not subscriber.state.has_ended and subscription.filter.matches(service, subscriber.locality):
                    reference = ServiceReference(
                        change=change,
                        service_id=service.service_id,
                        app_instance_id=service.app_instance_id,
                        name=service.name,
                        state=service.state,
                    )
                    self._references.setdefault(subscription_id, []).append(reference)

    def close_event(self) -> None:
        """One event is one notification to each subscription, however many services it touched."""
        references, self._references = self._references, {}
        for subscription_id, found in references.items():
            if subscription_id in self.outboxes:
                self.notify(subscription_id, services=tuple(found))

    def notify(
        self,
        subscription_id: str,
        services: tuple[ServiceReference, ...] = (),
        termination: TerminationAnnounced | None = None,
        expiry: ExpiryAnnounced | None = None,
        radio: JsonText | None = None,
    ) -> None:
        notification = Notification(
            subscription_id=subscription_id,
            sequence=self.revision,
            services=services,
            termination=termination,
            expiry=expiry,
            radio=radio,
        )
        outbox = self.outboxes[subscription_id]
        waiting, dead = (*outbox.waiting, notification), outbox.dead
        if len(waiting) > MOST_WAITING:
            waiting, dead = waiting[1:], self._with_dead(dead, waiting[0], OVERFLOW)
        self.outboxes = self.outboxes.set(subscription_id, Outbox(waiting, dead))
        self.do(to_do.DeliverNotifications(subscription_id))

    def settle(self, subscription_id: str, sequences: Collection[int]) -> None:
        outbox = self.outboxes.get(subscription_id)
        if outbox is not None:
            waiting = tuple(each for each in outbox.waiting if each.sequence not in sequences)
            self.outboxes = self.outboxes.set(subscription_id, Outbox(waiting, outbox.dead))

    def bury(self, subscription_id: str, sequence: int, reason: str) -> None:
        outbox = self.outboxes[subscription_id]
        buried = [each for each in outbox.waiting if each.sequence == sequence]
        dead = self._with_dead(outbox.dead, buried[0], reason) if buried else outbox.dead
        waiting = tuple(each for each in outbox.waiting if each.sequence != sequence)
        self.outboxes = self.outboxes.set(subscription_id, Outbox(waiting, dead))

    def _with_dead(
        self, dead: tuple[DeadLetter, ...], notification: Notification, reason: str
    ) -> tuple[DeadLetter, ...]:
        letter = DeadLetter(notification=notification, reason=reason, at_unix_ns=self.now_unix_ns)
        return (*dead, letter)[-MOST_DEAD:]

    def revive(self, subscription_id: str) -> None:
        outbox = self.outboxes[subscription_id]
        waiting = sorted(
            (*(each.notification for each in outbox.dead), *outbox.waiting), key=lambda each: each.sequence
        )
        self.outboxes = self.outboxes.set(subscription_id, Outbox(tuple(waiting)))
        self.do(to_do.DeliverNotifications(subscription_id))
