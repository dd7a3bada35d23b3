"""The registry as a pure state machine: `apply_events(state, occurrences) -> (state, effects)`.

Events are facts, so applying one never refuses for business reasons; whether it may happen is decided before it is
appended (the facades beside this module). An event that contradicts the state means a corrupt log and raises IllegalEvent.
The state changes through `_apply` only; `draft` keeps indexes and outboxes right while it does. No clock, no
randomness, no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TypeVar, assert_never

from mec_platform.domain.applications import (
    AppDescription,
    AppInstance,
    AppState,
    OperationAction,
    PendingTermination,
)
from mec_platform.domain.rules import DnsRule, RuleState, TrafficRule
from mec_platform.domain.services import ServiceInfo
from mec_platform.domain.subscriptions import (
    RADIO_TOPICS,
    ChangeType,
    ExpiryAnnounced,
    Outbox,
    Subscription,
    TerminationAnnounced,
    Topic,
)
from mec_platform.registry import effects as to_do
from mec_platform.registry import events
from mec_platform.registry.draft import Draft
from mec_platform.registry.events import Event, Occurrence
from mec_platform.registry.state import RegistryState

Rule = TypeVar("Rule", DnsRule, TrafficRule)

_ENDS = {OperationAction.STOPPING: AppState.STOPPED, OperationAction.TERMINATING: AppState.TERMINATED}
_ENDING = {OperationAction.STOPPING: AppState.STOPPING, OperationAction.TERMINATING: AppState.TERMINATING}


class IllegalEvent(Exception):
    """The event cannot follow the state: the log is corrupt, or its writer broke the rules."""


def apply_events(
    state: RegistryState, occurrences: Iterable[Occurrence]
) -> tuple[RegistryState, tuple[to_do.Effect, ...]]:
    """Applies events in order; returns the new state and what is to be done about them.

    Raises:
        IllegalEvent: an event does not fit, or revisions do not grow; `state` is unharmed.
    """
    draft = Draft(state)
    for occurrence in occurrences:
        if occurrence.revision <= draft.revision:
            raise IllegalEvent(f"revision {occurrence.revision} does not follow {draft.revision}")
        draft.revision, draft.now_unix_ns = occurrence.revision, occurrence.at_unix_ns
        _apply(draft, occurrence.event)
        draft.close_event()
    return draft.finish(), tuple(draft.effects)


def effects_of(state: RegistryState) -> tuple[to_do.Effect, ...]:
    """What a process that begins with this state has to do."""
    return (
        *(
            to_do.ExpectHeartbeats(service_id, service.liveness_interval_s, service.evict_after_intervals or 0)
            for service_id, service in state.services.items()
            if service.liveness_interval_s is not None
        ),
        *(to_do.DeliverNotifications(each) for each, outbox in state.outboxes.items() if outbox.waiting),
        *(to_do.ApplyRules(app_id) for app_id, app in state.apps.items() if app.dns_rules or app.traffic_rules),
        *(
            to_do.AwaitTermination(app_id, app.termination.deadline_unix_ns)
            for app_id, app in state.apps.items()
            if app.termination is not None
        ),
        *(
            to_do.AwaitExpiry(subscription_id, subscription.expiry.next_unix_ns)
            for subscription_id, subscription in state.subscriptions.items()
            if subscription.expiry is not None
        ),
    )


def effects_between(before: RegistryState, after: RegistryState) -> tuple[to_do.Effect, ...]:
    """What is to be done about events that cannot be read any more, because another registry has summed them up."""
    effects: list[to_do.Effect] = []
    for service_id, service in before.services.items():
        if not _sends_heartbeats(after, service_id):
            effects.append(to_do.ForgetHeartbeats(service_id))
        if service_id not in after.services:
            effects.append(to_do.AnnounceService(ChangeType.REMOVED, service, after.revision))
    effects += [to_do.EndSubscription(each) for each in before.subscriptions if each not in after.subscriptions]
    effects += [to_do.ForgetTermination(each) for each in pending_terminations(before) - pending_terminations(after)]
    effects += [to_do.ForgetExpiry(each) for each in pending_expiries(before) - pending_expiries(after)]
    effects += [
        to_do.ApplyRules(app_id)
        for app_id, app in before.apps.items()
        if app_id not in after.apps and (app.dns_rules or app.traffic_rules)
    ]
    for service_id in after.in_order(after.services):
        was, service = before.services.get(service_id), after.services[service_id]
        if was is None:
            effects.append(to_do.AnnounceService(ChangeType.ADDED, service, after.revision))
        elif was != service:
            effects.append(to_do.AnnounceService(_kind_of_change(was, service), service, after.revision))
    return (*effects, *effects_of(after))


def pending_terminations(state: RegistryState) -> set[str]:
    """Application instances whose end is awaited."""
    return {each for each, app in state.apps.items() if app.termination is not None}


def pending_expiries(state: RegistryState) -> set[str]:
    """Subscriptions that end by themselves."""
    return {each for each, subscription in state.subscriptions.items() if subscription.expiry is not None}


def _sends_heartbeats(state: RegistryState, service_id: str) -> bool:
    service = state.services.get(service_id)
    return service is not None and service.liveness_interval_s is not None


def _apply(draft: Draft, event: Event) -> None:
    match event:
        case events.AppRegistered(app, client):
            _require(app.app_instance_id not in draft.apps, event)
            draft.put_app(app)
            if client is not None:
                draft.clients = draft.clients.set(client.client_id, client)
            if app.dns_rules or app.traffic_rules:
                draft.do(to_do.ApplyRules(app.app_instance_id))
        case events.AppDescribed(app_instance_id, description):
            app = _app(draft, app_instance_id, event)
            draft.put_app(replace(app, **{each.name: getattr(description, each.name) for each in _DESCRIPTION}))
        case events.AppConfirmedReady(app_instance_id):
            draft.put_app(replace(_app(draft, app_instance_id, event), state=AppState.READY))
        case events.TerminationRequested(app_instance_id, termination):
            _begin_end(draft, _app(draft, app_instance_id, event), termination)
        case events.AppEnded(app_instance_id, action):
            _end(draft, _app(draft, app_instance_id, event), action)
        case events.AppStarted(app_instance_id):
            draft.put_app(replace(_app(draft, app_instance_id, event), state=AppState.NOT_READY))
        case events.AppLeft(app_instance_id):
            _leave(draft, _app(draft, app_instance_id, event))
        case events.DnsRuleChanged(app_instance_id, dns_rule):
            app = _app(draft, app_instance_id, event)
            draft.put_app(replace(app, dns_rules=_with_rule(app.dns_rules, dns_rule, event)))
            draft.do(to_do.ApplyRules(app_instance_id))
        case events.TrafficRuleChanged(app_instance_id, traffic_rule):
            app = _app(draft, app_instance_id, event)
            draft.put_app(replace(app, traffic_rules=_with_rule(app.traffic_rules, traffic_rule, event)))
            draft.do(to_do.ApplyRules(app_instance_id))
        case events.ServiceRegistered() | events.ServiceUpdated():
            _put_service(draft, event)
        case events.ServiceStateChanged() | events.ServiceRemoved():
            _change_service(draft, event)
        case events.Subscribed() | events.Unsubscribed():
            _change_subscription(draft, event)
        case events.SubscriptionReplaced() | events.ExpiryNoticeGiven() | events.RadioTold():
            _change_radio_subscription(draft, event)
        case (
            events.NotificationsSettled()
            | events.NotificationBuried()
            | events.DeadLettersRevived()
            | events.DeadLettersDropped()
        ):
            _change_outbox(draft, event)
        case events.ClientAdded() | events.ClientRemoved() | events.SigningKeyAdded() | events.SigningKeyRemoved():
            _change_credentials(draft, event)
        case events.JoinPermitted() | events.JoinPermitUsed() | events.JoinPermitWithdrawn():
            _change_permits(draft, event)
        case events.RegistryFounded() | events.PeerServicesChanged() | events.PeerForgotten():
            _change_federation(draft, event)
        case _:
            assert_never(event)


_DESCRIPTION = fields(AppDescription)


def _begin_end(draft: Draft, app: AppInstance, termination: PendingTermination) -> None:
    draft.put_app(replace(app, state=_ENDING[termination.action], termination=termination))
    announced = TerminationAnnounced(
        action=termination.action, max_graceful_timeout_s=termination.max_graceful_timeout_s
    )
    for subscription_id in draft.subscriptions_of(app.app_instance_id, Topic.APP_TERMINATION):
        draft.notify(subscription_id, termination=announced)
    draft.do(to_do.AwaitTermination(app.app_instance_id, termination.deadline_unix_ns))


def _end(draft: Draft, app: AppInstance, action: OperationAction) -> None:
    """MEC 011 clause 5.2.3: its services are withdrawn and its rules deactivated; of a terminated one nobody listens."""
    # First, so that it does not hear of its own services.
    draft.put_app(
        replace(
            app,
            state=_ENDS[action],
            termination=None,
            dns_rules=tuple(replace(rule, state=RuleState.INACTIVE) for rule in app.dns_rules),
            traffic_rules=tuple(replace(rule, state=RuleState.INACTIVE) for rule in app.traffic_rules),
        )
    )
    draft.drop_services_of(app.app_instance_id)
    if action is OperationAction.TERMINATING:
        for subscription_id in draft.subscriptions_of(app.app_instance_id):
            draft.drop_subscription(subscription_id)
    draft.do(to_do.ForgetTermination(app.app_instance_id), to_do.ApplyRules(app.app_instance_id))


def _leave(draft: Draft, app: AppInstance) -> None:
    for subscription_id in draft.subscriptions_of(app.app_instance_id):
        draft.drop_subscription(subscription_id)
    draft.drop_services_of(app.app_instance_id)
    draft.drop_app(app.app_instance_id)
    draft.do(to_do.ForgetTermination(app.app_instance_id))
    if app.dns_rules or app.traffic_rules:
        draft.do(to_do.ApplyRules(app.app_instance_id))


def _put_service(draft: Draft, event: events.ServiceRegistered | events.ServiceUpdated) -> None:
    service = event.service
    before = draft.services.get(service.service_id)
    if isinstance(event, events.ServiceRegistered):
        _require(before is None and not service.origin and service.app_instance_id in draft.apps, event)
        draft.put_service(service)
        draft.announce(ChangeType.ADDED, service)
        return
    if before is None or before.app_instance_id != service.app_instance_id or before.origin or service.origin:
        raise _contradiction(event)
    _replace_service(draft, before, service)


def _replace_service(draft: Draft, before: ServiceInfo, service: ServiceInfo) -> None:
    draft.put_service(service)
    if service != before:
        draft.announce(_kind_of_change(before, service), service)


def _kind_of_change(before: ServiceInfo, after: ServiceInfo) -> ChangeType:
    """MEC 011 clause 8.1.4.2: STATE_CHANGED where nothing but the state did."""
    state_only = replace(before, state=after.state) == after
    return ChangeType.STATE_CHANGED if state_only else ChangeType.ATTRIBUTES_CHANGED


def _change_service(draft: Draft, event: events.ServiceStateChanged | events.ServiceRemoved) -> None:
    service = draft.services.get(event.service_id)
    if service is None or service.origin:
        raise _contradiction(event)
    if isinstance(event, events.ServiceRemoved):
        draft.drop_service(service)
    else:
        service = replace(service, state=event.state)
        draft.put_service(service)
        draft.announce(ChangeType.STATE_CHANGED, service)


def _change_subscription(draft: Draft, event: events.Subscribed | events.Unsubscribed) -> None:
    if isinstance(event, events.Unsubscribed):
        _require(event.subscription_id in draft.subscriptions, event)
        draft.drop_subscription(event.subscription_id)
        return
    subscription = event.subscription
    of_client = subscription.topic in RADIO_TOPICS and not subscription.app_instance_id
    _require(of_client or subscription.app_instance_id in draft.apps, event)
    _require(subscription.subscription_id not in draft.subscriptions, event)
    draft.put_subscription(subscription)
    if subscription.delivery.requests_test:
        draft.notify(subscription.subscription_id)


def _change_radio_subscription(
    draft: Draft, event: events.SubscriptionReplaced | events.ExpiryNoticeGiven | events.RadioTold
) -> None:
    match event:
        case events.SubscriptionReplaced(subscription):
            before = _subscription(draft, subscription.subscription_id, event)
            _require((before.topic, before.owner) == (subscription.topic, subscription.owner), event)
            _require(not subscription.app_instance_id or subscription.app_instance_id in draft.apps, event)
            draft.replace_subscription(subscription)
            if subscription.delivery.requests_test:
                draft.notify(subscription.subscription_id)
        case events.ExpiryNoticeGiven(subscription_id):
            subscription = _subscription(draft, subscription_id, event)
            if subscription.expiry is None:
                raise _contradiction(event)
            draft.replace_subscription(replace(subscription, expiry=replace(subscription.expiry, noticed=True)))
            announced = ExpiryAnnounced(
                at_unix_ns=draft.now_unix_ns, deadline_unix_ns=subscription.expiry.deadline_unix_ns
            )
            draft.notify(subscription_id, expiry=announced)
        case events.RadioTold(message, subscription_ids):
            # A subscription may have ended since it was found that this is for it.
            for each in subscription_ids:
                if each in draft.subscriptions:
                    draft.notify(each, radio=message)


def _subscription(draft: Draft, subscription_id: str, event: Event) -> Subscription:
    subscription = draft.subscriptions.get(subscription_id)
    if subscription is None or subscription.topic not in RADIO_TOPICS:
        raise _contradiction(event)
    return subscription


def _change_outbox(
    draft: Draft,
    event: events.NotificationsSettled
    | events.NotificationBuried
    | events.DeadLettersRevived
    | events.DeadLettersDropped,
) -> None:
    if isinstance(event, events.NotificationsSettled):
        # A subscription may have ended while its last notifications were on their way.
        for subscription_id, sequences in event.delivered.items():
            draft.settle(subscription_id, sequences)
        return
    outbox = draft.outboxes.get(event.subscription_id)
    if outbox is None:
        raise _contradiction(event)
    match event:
        case events.NotificationBuried(subscription_id, sequence, reason):
            draft.bury(subscription_id, sequence, reason)
        case events.DeadLettersRevived(subscription_id):
            draft.revive(subscription_id)
        case events.DeadLettersDropped(subscription_id):
            draft.outboxes = draft.outboxes.set(subscription_id, Outbox(outbox.waiting))


def _change_credentials(
    draft: Draft,
    event: events.ClientAdded | events.ClientRemoved | events.SigningKeyAdded | events.SigningKeyRemoved,
) -> None:
    match event:
        case events.ClientAdded(client):
            draft.clients = draft.clients.set(client.client_id, client)
        case events.ClientRemoved(client_id):
            _require(client_id in draft.clients, event)
            draft.drop_client(client_id)
        case events.SigningKeyAdded(key):
            _require(key.key_id not in draft.signing_keys, event)
            draft.signing_keys = draft.signing_keys.set(key.key_id, key)
        case events.SigningKeyRemoved(key_id):
            _require(key_id in draft.signing_keys, event)
            draft.signing_keys = draft.signing_keys.delete(key_id)


def _change_permits(
    draft: Draft, event: events.JoinPermitted | events.JoinPermitUsed | events.JoinPermitWithdrawn
) -> None:
    match event:
        case events.JoinPermitted(permit):
            for each in draft.join_permits.values():
                if each.expires_unix_ns <= draft.now_unix_ns:
                    draft.join_permits = draft.join_permits.delete(each.permit_id)
            draft.join_permits = draft.join_permits.set(permit.permit_id, permit)
        case events.JoinPermitUsed(permit_id, client):
            _require(permit_id in draft.join_permits, event)
            draft.join_permits = draft.join_permits.delete(permit_id)
            draft.clients = draft.clients.set(client.client_id, client)
        case events.JoinPermitWithdrawn(permit_id):
            _require(permit_id in draft.join_permits, event)
            draft.join_permits = draft.join_permits.delete(permit_id)


def _change_federation(
    draft: Draft, event: events.RegistryFounded | events.PeerServicesChanged | events.PeerForgotten
) -> None:
    match event:
        case events.RegistryFounded(registry_id):
            _require(bool(registry_id) and not draft.registry_id, event)
            draft.registry_id = registry_id
        case events.PeerServicesChanged(peer, cursor):
            _require(bool(peer), event)
            _copy_services(draft, event)
            draft.peers = draft.peers.set(peer, cursor)
        case events.PeerForgotten(peer):
            _require(peer in draft.peers, event)
            draft.drop_services_from(peer)
            draft.peers = draft.peers.delete(peer)


def _copy_services(draft: Draft, event: events.PeerServicesChanged) -> None:
    for service_id in event.removed:
        known = draft.services.get(service_id)
        if known is None or known.origin != event.peer:
            raise _contradiction(event)
        draft.drop_service(known)
    for service in event.put:
        before = draft.services.get(service.service_id)
        _require(service.origin == event.peer and service.liveness_interval_s is None, event)
        if before is None:
            draft.put_service(service)
            draft.announce(ChangeType.ADDED, service)
        else:
            _require(before.origin == event.peer, event)
            _replace_service(draft, before, service)


def _app(draft: Draft, app_instance_id: str, event: Event) -> AppInstance:
    app = draft.apps.get(app_instance_id)
    if app is None:
        raise _contradiction(event)
    return app


def _require(holds: bool, event: Event) -> None:
    if not holds:
        raise _contradiction(event)


def _contradiction(event: Event) -> IllegalEvent:
    return IllegalEvent(f"{event} contradicts the state of the registry")


def _with_rule(rules: tuple[Rule, ...], changed: Rule, event: Event) -> tuple[Rule, ...]:
    _require(any(rule.rule_id == changed.rule_id for rule in rules), event)
    return tuple(changed if rule.rule_id == changed.rule_id else rule for rule in rules)
