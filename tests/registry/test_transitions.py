"""The registry's state machine: transitions as sentences, and what holds for every history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.applications import (
    AppDescription,
    AppInstance,
    AppState,
    OperationAction,
    PendingTermination,
)
from mec_platform.domain.credentials import Client, JoinPermit, Scope, SigningKey
from mec_platform.domain.federation import PeerCursor
from mec_platform.domain.locality import Locality
from mec_platform.domain.rules import (
    DnsRule,
    FilterType,
    IpAddressType,
    RuleState,
    TrafficAction,
    TrafficFilter,
    TrafficRule,
)
from mec_platform.domain.services import (
    EndPoint,
    JsonText,
    SerializerType,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.domain.subscriptions import (
    AvailabilityFilter,
    ChangeType,
    Delivery,
    Expiry,
    ExpiryAnnounced,
    Notification,
    ServiceReference,
    Subscription,
    TerminationAnnounced,
    Topic,
)
from mec_platform.registry.draft import MOST_DEAD, MOST_WAITING, OVERFLOW
from mec_platform.registry.effects import (
    AnnounceService,
    ApplyRules,
    AwaitExpiry,
    AwaitTermination,
    DeliverNotifications,
    Effect,
    EndSubscription,
    ExpectHeartbeats,
    ForgetExpiry,
    ForgetHeartbeats,
    ForgetTermination,
)
from mec_platform.registry.event_codec import KINDS, decode_event, encode_event
from mec_platform.registry.event_log import LogEntry, Record
from mec_platform.registry.events import (
    AppConfirmedReady,
    AppDescribed,
    AppEnded,
    AppLeft,
    AppRegistered,
    AppStarted,
    ClientAdded,
    ClientRemoved,
    DeadLettersDropped,
    DeadLettersRevived,
    DnsRuleChanged,
    Event,
    ExpiryNoticeGiven,
    JoinPermitted,
    JoinPermitUsed,
    JoinPermitWithdrawn,
    NotificationBuried,
    NotificationsSettled,
    Occurrence,
    PeerForgotten,
    PeerServicesChanged,
    RadioTold,
    RegistryFounded,
    ServiceRegistered,
    ServiceRemoved,
    ServiceStateChanged,
    ServiceUpdated,
    SigningKeyAdded,
    SigningKeyRemoved,
    Subscribed,
    SubscriptionReplaced,
    TerminationRequested,
    TrafficRuleChanged,
    Unsubscribed,
    subject_of,
)
from mec_platform.registry.state import RegistryState
from mec_platform.registry.state_codec import decode_state, encode_state
from mec_platform.registry.transitions import IllegalEvent, apply_events, effects_between, effects_of

HOST = Locality(mec_host="host-1")
APP = AppInstance(app_instance_id="app-1", name="greeter", locality=HOST)
TRANSPORT = TransportInfo(
    id="rest",
    name="REST",
    type=TransportType.REST_HTTP,
    protocol="HTTP",
    version="1.1",
    endpoint=EndPoint(uris=("http://127.0.0.1:9000/",)),
)
SERVICE = ServiceInfo(
    service_id="service-1",
    app_instance_id="app-1",
    locality=HOST,
    name="greeting",
    version="1.0",
    state=ServiceState.ACTIVE,
    transport=TRANSPORT,
    serializer=SerializerType.JSON,
    liveness_interval_s=5,
)
OFFERED: list[Event] = [AppRegistered(APP), ServiceRegistered(SERVICE)]


def apply(*events: Event, to: RegistryState | None = None) -> tuple[RegistryState, tuple[Effect, ...]]:
    state = to or RegistryState()
    return apply_events(
        state, [Occurrence(revision, 7, event) for revision, event in enumerate(events, start=state.revision + 1)]
    )


def test_a_registered_service_is_announced_and_expected_to_send_heartbeats():
    state, effects = apply(*OFFERED)
    assert dict(state.services) == {"service-1": SERVICE}
    assert effects == (ExpectHeartbeats("service-1", 5), AnnounceService(ChangeType.ADDED, SERVICE, 2))


def test_a_service_without_interval_is_not_expected_to_send_heartbeats():
    silent = replace(SERVICE, liveness_interval_s=None)
    _, effects = apply(AppRegistered(APP), ServiceRegistered(silent))
    assert effects == (ForgetHeartbeats("service-1"), AnnounceService(ChangeType.ADDED, silent, 2))


def test_an_application_takes_its_services_and_no_others_with_it():
    other_app = replace(APP, app_instance_id="app-2")
    other_service = replace(SERVICE, service_id="service-2", app_instance_id="app-2")
    state, _ = apply(*OFFERED, AppRegistered(other_app), ServiceRegistered(other_service))
    state, effects = apply(AppLeft("app-1"), to=state)
    assert dict(state.apps) == {"app-2": other_app}
    assert dict(state.services) == {"service-2": other_service}
    assert effects == (
        ForgetHeartbeats("service-1"),
        AnnounceService(ChangeType.REMOVED, SERVICE, 5),
        ForgetTermination("app-1"),
    )


def test_readiness_is_remembered():
    state, effects = apply(AppRegistered(APP), AppConfirmedReady("app-1"))
    assert state.apps["app-1"] == replace(APP, state=AppState.READY)
    assert effects == ()


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (replace(SERVICE, state=ServiceState.INACTIVE), ChangeType.STATE_CHANGED),
        (replace(SERVICE, version="2.0"), ChangeType.ATTRIBUTES_CHANGED),
        (replace(SERVICE, version="2.0", state=ServiceState.INACTIVE), ChangeType.ATTRIBUTES_CHANGED),
    ],
)
def test_an_update_is_a_state_change_only_when_nothing_else_changed(after: ServiceInfo, change: ChangeType):
    state, _ = apply(*OFFERED)
    state, effects = apply(ServiceUpdated(after), to=state)
    assert state.services["service-1"] == after
    assert AnnounceService(change, after, 3) in effects


def test_an_update_that_changes_nothing_is_not_announced():
    state, _ = apply(*OFFERED)
    _, effects = apply(ServiceUpdated(SERVICE), to=state)
    assert effects == (ExpectHeartbeats("service-1", 5),)


def test_a_suspended_service_is_still_expected_to_send_heartbeats():
    state, _ = apply(*OFFERED)
    suspended = replace(SERVICE, state=ServiceState.SUSPENDED)
    state, effects = apply(ServiceStateChanged("service-1", ServiceState.SUSPENDED), to=state)
    assert effects == (ExpectHeartbeats("service-1", 5), AnnounceService(ChangeType.STATE_CHANGED, suspended, 3))


@pytest.mark.parametrize(
    "event",
    [
        AppRegistered(APP),
        AppConfirmedReady("nobody"),
        AppLeft("nobody"),
        ServiceRegistered(SERVICE),
        ServiceRegistered(replace(SERVICE, service_id="new", app_instance_id="nobody")),
        ServiceUpdated(replace(SERVICE, service_id="nothing")),
        ServiceUpdated(replace(SERVICE, app_instance_id="somebody else")),
        ServiceStateChanged("nothing", ServiceState.ACTIVE),
        ServiceRemoved("nothing"),
    ],
)
def test_refuses_an_event_that_contradicts_the_state(event: Event):
    state, _ = apply(*OFFERED)
    with pytest.raises(IllegalEvent):
        apply(event, to=state)
    assert dict(state.services) == {"service-1": SERVICE}


def test_refuses_a_revision_that_does_not_grow():
    state, _ = apply(*OFFERED)
    with pytest.raises(IllegalEvent):
        apply_events(state, [Occurrence(state.revision, 0, AppLeft("app-1"))])


def test_refuses_to_read_an_entry_of_an_unknown_kind():
    with pytest.raises(IllegalEvent, match=r"app\.exploded"):
        decode_event(LogEntry(1, "registry", Record("app.exploded", b"{}")))


SUBSCRIPTION = Subscription(
    subscription_id="subscription-1",
    app_instance_id="app-1",
    topic=Topic.SERVICE_AVAILABILITY,
    delivery=Delivery(callback_uri="http://127.0.0.1:9/"),
)
RADIO_SUBSCRIPTION = Subscription(
    subscription_id="radio-1",
    app_instance_id="",
    topic=Topic.CELL_CHANGE,
    delivery=Delivery(callback_uri="http://127.0.0.1:9/"),
    criteria_text=JsonText("{}"),
    owner="app-1",
    expiry=Expiry(deadline_unix_ns=20, notice_unix_ns=10),
)
TOLD = JsonText('{"notificationType":"CellChangeNotification"}')
TERMINATION = PendingTermination(action=OperationAction.TERMINATING, max_graceful_timeout_s=10, deadline_unix_ns=10**10)
DNS_RULE = DnsRule(rule_id="dns-1", domain_name="a.example", address_type=IpAddressType.IP_V4, ip_address="192.0.2.1")
TRAFFIC_RULE = TrafficRule(
    rule_id="traffic-1",
    filter_type=FilterType.FLOW,
    priority=1,
    filters=(TrafficFilter(source_addresses=("192.0.2.0/24",)),),
    action=TrafficAction.DROP,
)
PERMIT = JoinPermit(secret_hash="0" * 64, name="edge-1", created_unix_ns=0, expires_unix_ns=2**62)
CLIENT = Client(client_id="app-1", scopes=frozenset({Scope.APP_SUPPORT}), secret_hash="00")
KEY = SigningKey(key_id="key-1", private_jwk="{}", created_unix_ns=1)


def waiting(state: RegistryState, subscription_id: str = "subscription-1") -> list[Notification]:
    return list(state.outboxes[subscription_id].waiting)


def test_a_subscriber_is_told_of_what_its_filter_matches_and_of_nothing_else():
    picky = replace(
        SUBSCRIPTION, subscription_id="picky", filter=AvailabilityFilter(names=frozenset({"another", "third"}))
    )
    state, effects = apply(AppRegistered(APP), Subscribed(SUBSCRIPTION), Subscribed(picky), ServiceRegistered(SERVICE))
    reference = ServiceReference(
        change=ChangeType.ADDED,
        service_id="service-1",
        app_instance_id="app-1",
        name="greeting",
        state=ServiceState.ACTIVE,
    )
    assert waiting(state) == [Notification(subscription_id="subscription-1", sequence=4, services=(reference,))]
    assert waiting(state, "picky") == []
    assert [each for each in effects if isinstance(each, DeliverNotifications)] == [
        DeliverNotifications("subscription-1")
    ]


@pytest.mark.parametrize(
    ("criteria", "told"),
    [
        (AvailabilityFilter(service_ids=frozenset({"service-1", "x"})), True),
        (AvailabilityFilter(service_ids=frozenset({"x"})), False),
        (AvailabilityFilter(category_ids=frozenset({"c"})), False),
        (AvailabilityFilter(names=frozenset()), False),
        (AvailabilityFilter(states=frozenset({ServiceState.ACTIVE})), True),
        (AvailabilityFilter(states=frozenset({ServiceState.SUSPENDED})), False),
        (AvailabilityFilter(is_local=True), True),
        (AvailabilityFilter(is_local=False), False),
        (AvailabilityFilter(names=frozenset({"greeting"}), states=frozenset({ServiceState.INACTIVE})), False),
    ],
)
def test_filters_combine_attributes_with_and_and_values_with_or(criteria: AvailabilityFilter, told: bool):
    state, _ = apply(AppRegistered(APP), Subscribed(replace(SUBSCRIPTION, filter=criteria)), ServiceRegistered(SERVICE))
    assert bool(waiting(state)) is told


def test_a_consumer_elsewhere_is_not_told_of_what_is_consumed_locally_only():
    afar = replace(APP, app_instance_id="app-2", locality=Locality(mec_host="host-2"))
    theirs = replace(SUBSCRIPTION, app_instance_id="app-2")
    open_to_all = replace(SERVICE, service_id="service-2", consumed_local_only=False)
    state, _ = apply(AppRegistered(APP), AppRegistered(afar), Subscribed(theirs), ServiceRegistered(SERVICE))
    assert waiting(state) == []
    state, _ = apply(ServiceRegistered(open_to_all), to=state)
    assert [each.services[0].service_id for each in waiting(state)] == ["service-2"]


def test_what_leaves_with_its_application_is_one_notification():
    other = replace(APP, app_instance_id="app-2")
    second = replace(SERVICE, service_id="service-2", name="farewell")
    state, _ = apply(
        AppRegistered(APP),
        AppRegistered(other),
        ServiceRegistered(SERVICE),
        ServiceRegistered(second),
        Subscribed(replace(SUBSCRIPTION, app_instance_id="app-2")),
        AppLeft("app-1"),
    )
    (notification,) = waiting(state)
    assert [(each.change, each.name) for each in notification.services] == [
        (ChangeType.REMOVED, "greeting"),
        (ChangeType.REMOVED, "farewell"),
    ]


def test_a_requested_test_notification_comes_first():
    asking = replace(SUBSCRIPTION, delivery=Delivery(callback_uri="http://127.0.0.1:9/", requests_test=True))
    state, _ = apply(AppRegistered(APP), Subscribed(asking), ServiceRegistered(SERVICE))
    first, second = waiting(state)
    assert (first.sequence, first.services, first.termination) == (2, (), None)
    assert second.services


def test_settled_notifications_wait_no_more_and_an_ended_subscription_is_no_problem():
    state, _ = apply(
        AppRegistered(APP), Subscribed(SUBSCRIPTION), ServiceRegistered(SERVICE), ServiceRemoved("service-1")
    )
    assert [each.sequence for each in waiting(state)] == [3, 4]
    state, _ = apply(NotificationsSettled({"subscription-1": (2, 3), "gone": (9,)}), to=state)
    assert [each.sequence for each in waiting(state)] == [4]


def test_what_is_revived_before_later_ones_are_settled_still_waits():
    state, _ = apply(
        AppRegistered(APP), Subscribed(SUBSCRIPTION), ServiceRegistered(SERVICE), ServiceRemoved("service-1")
    )
    state, _ = apply(
        NotificationBuried("subscription-1", 3, "503"),
        DeadLettersRevived("subscription-1"),
        NotificationsSettled({"subscription-1": (4,)}),
        to=state,
    )
    assert [each.sequence for each in waiting(state)] == [3]


def test_a_buried_notification_is_a_dead_letter_until_it_is_revived_or_dropped():
    state, _ = apply(
        AppRegistered(APP), Subscribed(SUBSCRIPTION), ServiceRegistered(SERVICE), ServiceRemoved("service-1")
    )
    state, _ = apply(NotificationBuried("subscription-1", 3, "410 Gone"), to=state)
    (letter,) = state.outboxes["subscription-1"].dead
    assert (letter.notification.sequence, letter.reason, letter.at_unix_ns) == (3, "410 Gone", 7)
    revived, effects = apply(DeadLettersRevived("subscription-1"), to=state)
    assert [each.sequence for each in waiting(revived)] == [3, 4]
    assert effects == (DeliverNotifications("subscription-1"),)
    dropped, _ = apply(DeadLettersDropped("subscription-1"), to=state)
    assert dropped.outboxes["subscription-1"].dead == ()
    assert [each.sequence for each in waiting(dropped)] == [4]


def test_an_outbox_that_nobody_empties_stays_bounded():
    state, _ = apply(AppRegistered(APP), Subscribed(SUBSCRIPTION), ServiceRegistered(SERVICE))
    flapping = [
        ServiceStateChanged("service-1", [ServiceState.INACTIVE, ServiceState.ACTIVE][n % 2])
        for n in range(MOST_WAITING + MOST_DEAD + 5)
    ]
    state, _ = apply(*flapping, to=state)
    outbox = state.outboxes["subscription-1"]
    assert (len(outbox.waiting), len(outbox.dead)) == (MOST_WAITING, MOST_DEAD)
    assert outbox.dead[-1].notification.sequence + 1 == outbox.waiting[0].sequence
    assert outbox.dead[-1].reason == OVERFLOW


def test_a_graceful_end_is_announced_and_awaited_and_takes_services_only_when_it_is_over():
    listening = replace(SUBSCRIPTION, topic=Topic.APP_TERMINATION)
    state, _ = apply(*OFFERED, Subscribed(listening))
    state, effects = apply(TerminationRequested("app-1", TERMINATION), to=state)
    assert state.apps["app-1"].state is AppState.TERMINATING
    assert list(state.services) == ["service-1"]
    announced = TerminationAnnounced(action=OperationAction.TERMINATING, max_graceful_timeout_s=10)
    assert waiting(state) == [Notification(subscription_id="subscription-1", sequence=4, termination=announced)]
    assert effects == (DeliverNotifications("subscription-1"), AwaitTermination("app-1", 10**10))
    state, effects = apply(AppEnded("app-1", OperationAction.TERMINATING, confirmed=True), to=state)
    assert state.apps["app-1"].state is AppState.TERMINATED
    assert (dict(state.services), dict(state.subscriptions), dict(state.outboxes)) == ({}, {}, {})
    assert EndSubscription("subscription-1") in effects
    assert effects[-2:] == (ForgetTermination("app-1"), ApplyRules("app-1"))


def test_a_stopped_instance_keeps_its_subscriptions_but_hears_nothing_until_it_is_started():
    other = replace(APP, app_instance_id="app-2")
    state, _ = apply(AppRegistered(APP), AppRegistered(other), Subscribed(SUBSCRIPTION))
    state, _ = apply(AppEnded("app-1", OperationAction.STOPPING, confirmed=False), to=state)
    theirs = replace(SERVICE, app_instance_id="app-2")
    state, _ = apply(ServiceRegistered(theirs), to=state)
    assert waiting(state) == []
    state, _ = apply(AppStarted("app-1"), ServiceRemoved("service-1"), to=state)
    assert state.apps["app-1"].state is AppState.NOT_READY
    assert len(waiting(state)) == 1


def test_an_instance_that_is_stopped_does_not_hear_of_the_end_of_its_own_services():
    state, _ = apply(AppRegistered(APP), Subscribed(SUBSCRIPTION), ServiceRegistered(SERVICE))
    before = waiting(state)
    state, _ = apply(AppEnded("app-1", OperationAction.STOPPING, confirmed=True), to=state)
    assert dict(state.services) == {}
    assert waiting(state) == before


def test_rules_are_replaced_by_id_and_inactive_once_their_instance_has_ended():
    with_rules = replace(APP, dns_rules=(replace(DNS_RULE, state=RuleState.ACTIVE),), traffic_rules=(TRAFFIC_RULE,))
    active = replace(TRAFFIC_RULE, state=RuleState.ACTIVE, priority=3)
    state, effects = apply(AppRegistered(with_rules), TrafficRuleChanged("app-1", active))
    assert state.apps["app-1"].traffic_rules == (active,)
    assert effects == (ApplyRules("app-1"), ApplyRules("app-1"))
    state, _ = apply(AppEnded("app-1", OperationAction.TERMINATING, confirmed=False), to=state)
    app = state.apps["app-1"]
    assert {rule.state for rule in (*app.dns_rules, *app.traffic_rules)} == {RuleState.INACTIVE}


def test_a_process_that_begins_with_a_state_is_told_what_is_left_to_do():
    with_rules = replace(APP, dns_rules=(DNS_RULE,))
    state, _ = apply(
        AppRegistered(with_rules),
        Subscribed(SUBSCRIPTION),
        ServiceRegistered(SERVICE),
        TerminationRequested("app-1", TERMINATION),
    )
    assert set(effects_of(state)) == {
        ExpectHeartbeats("service-1", 5),
        DeliverNotifications("subscription-1"),
        ApplyRules("app-1"),
        AwaitTermination("app-1", 10**10),
    }


def test_news_of_radio_wait_for_those_that_are_still_there_and_settle_like_others():
    state, effects = apply(Subscribed(RADIO_SUBSCRIPTION), RadioTold(TOLD, ("gone", "radio-1")))
    assert waiting(state, "radio-1") == [Notification(subscription_id="radio-1", sequence=2, radio=TOLD)]
    assert effects == (AwaitExpiry("radio-1", 10), DeliverNotifications("radio-1"))


def test_an_end_is_announced_once_and_awaited_then_unless_there_is_more_time():
    state, effects = apply(Subscribed(RADIO_SUBSCRIPTION), ExpiryNoticeGiven("radio-1"))
    announced = ExpiryAnnounced(at_unix_ns=7, deadline_unix_ns=20)
    assert waiting(state, "radio-1") == [Notification(subscription_id="radio-1", sequence=2, expiry=announced)]
    assert [each for each in effects if isinstance(each, AwaitExpiry)] == [
        AwaitExpiry("radio-1", 10),
        AwaitExpiry("radio-1", 20),
    ]
    longer = replace(RADIO_SUBSCRIPTION, expiry=Expiry(deadline_unix_ns=200, notice_unix_ns=100))
    extended, effects = apply(SubscriptionReplaced(longer), to=state)
    assert AwaitExpiry("radio-1", 100) in effects
    assert waiting(extended, "radio-1") == waiting(state, "radio-1")
    for_ever, effects = apply(SubscriptionReplaced(replace(longer, expiry=None)), to=extended)
    assert ForgetExpiry("radio-1") in effects
    assert not [each for each in effects_of(for_ever) if isinstance(each, AwaitExpiry)]


def test_a_clients_subscriptions_end_with_the_client():
    state, effects = apply(ClientAdded(CLIENT), Subscribed(RADIO_SUBSCRIPTION), ClientRemoved("app-1"))
    assert not state.subscriptions
    assert effects[-2:] == (EndSubscription("radio-1"), ForgetExpiry("radio-1"))


@pytest.mark.parametrize(
    "event",
    [
        Subscribed(replace(RADIO_SUBSCRIPTION, subscription_id="radio-2", app_instance_id="nobody")),
        SubscriptionReplaced(replace(RADIO_SUBSCRIPTION, subscription_id="radio-2")),
        SubscriptionReplaced(replace(RADIO_SUBSCRIPTION, owner="somebody else")),
        SubscriptionReplaced(replace(RADIO_SUBSCRIPTION, topic=Topic.S1_BEARER)),
        ExpiryNoticeGiven("radio-2"),
    ],
)
def test_refuses_what_no_radio_subscription_can_become(event: Event):
    state, _ = apply(Subscribed(RADIO_SUBSCRIPTION))
    with pytest.raises(IllegalEvent):
        apply(event, to=state)


def possible_event(kind: str, app_id: str, number: int, service_state: ServiceState) -> Event:
    service = replace(SERVICE, service_id=f"service-{number}", app_instance_id=app_id, state=service_state)
    subscription_id = f"subscription-{number}"
    topic = [Topic.SERVICE_AVAILABILITY, Topic.APP_TERMINATION][number % 2]
    radio = replace(RADIO_SUBSCRIPTION, subscription_id=subscription_id, owner=app_id)
    app = replace(APP, app_instance_id=app_id, dns_rules=(DNS_RULE,), traffic_rules=(TRAFFIC_RULE,))
    possible: dict[str, Event] = {
        "app.registered": AppRegistered(app),
        "app.described": AppDescribed(app_id, AppDescription(name=f"name-{number}")),
        "app.confirmed_ready": AppConfirmedReady(app_id),
        "app.termination_requested": TerminationRequested(app_id, TERMINATION),
        "app.ended": AppEnded(app_id, list(OperationAction)[number % 2], confirmed=True),
        "app.started": AppStarted(app_id),
        "app.left": AppLeft(app_id),
        "app.dns_rule_changed": DnsRuleChanged(app_id, replace(DNS_RULE, ttl_s=number)),
        "app.traffic_rule_changed": TrafficRuleChanged(app_id, replace(TRAFFIC_RULE, priority=number)),
        "service.registered": ServiceRegistered(service),
        "service.updated": ServiceUpdated(service),
        "service.state_changed": ServiceStateChanged(service.service_id, service_state),
        "service.removed": ServiceRemoved(service.service_id),
        "subscription.added": Subscribed(
            radio
            if service_state is ServiceState.SUSPENDED
            else replace(SUBSCRIPTION, subscription_id=subscription_id, app_instance_id=app_id, topic=topic)
        ),
        "subscription.removed": Unsubscribed(subscription_id),
        "subscription.replaced": SubscriptionReplaced(
            replace(
                radio,
                expiry=None if service_state is ServiceState.ACTIVE else Expiry(deadline_unix_ns=9, notice_unix_ns=8),
            )
        ),
        "subscription.expiry_noticed": ExpiryNoticeGiven(subscription_id),
        "radio.told": RadioTold(TOLD, ("subscription-0", subscription_id)),
        "notification.settled": NotificationsSettled({subscription_id: (number * 10,)}),
        "notification.buried": NotificationBuried(subscription_id, number * 3, "refused"),
        "notification.revived": DeadLettersRevived(subscription_id),
        "notification.dropped": DeadLettersDropped(subscription_id),
        "client.added": ClientAdded(replace(CLIENT, client_id=app_id)),
        "client.removed": ClientRemoved(app_id),
        "join.permitted": JoinPermitted(replace(PERMIT, secret_hash=f"{number}" * 64, expires_unix_ns=number)),
        "join.used": JoinPermitUsed(f"{number}" * 16, replace(CLIENT, client_id=app_id)),
        "join.withdrawn": JoinPermitWithdrawn(f"{number}" * 16),
        "key.added": SigningKeyAdded(replace(KEY, key_id=f"key-{number}")),
        "key.removed": SigningKeyRemoved(f"key-{number}"),
        "registry.founded": RegistryFounded(f"registry-{number}"),
        "peer.services_changed": possible_peer_change(app_id, number, service_state),
        "peer.forgotten": PeerForgotten(app_id),
    }
    assert set(possible) == set(KINDS)
    return possible[kind]


def possible_peer_change(peer: str, number: int, service_state: ServiceState) -> PeerServicesChanged:
    """Peers are called like applications here, and their services like those of this host, so that they meet."""
    copy = replace(SERVICE, service_id=f"service-{number}", state=service_state, liveness_interval_s=None, origin=peer)
    cursor = PeerCursor("registry", number or None)
    other = f"service-{(number + 1) % 3}"
    if service_state is ServiceState.SUSPENDED:
        return PeerServicesChanged(peer, cursor, removed=(other,))
    return PeerServicesChanged(peer, cursor, put=(copy,))


def histories() -> st.SearchStrategy[list[Event]]:
    """Sequences of events that are legal in their order, over a few ids so that they meet each other."""
    # What fills the state comes often enough for the rest to find something.
    kinds = [*sorted(KINDS), "app.registered", "service.registered", "subscription.added", "subscription.added"]
    moves = st.tuples(st.sampled_from(kinds), st.integers(0, 2), st.integers(0, 2), st.sampled_from(ServiceState))
    return st.lists(moves, max_size=50).map(legal_history)


def legal_history(moves: list[tuple[str, int, int, ServiceState]]) -> list[Event]:
    state, history = RegistryState(), []
    for kind, app_number, number, service_state in moves:
        event = possible_event(kind, f"app-{app_number}", number, service_state)
        try:
            state, _ = apply(event, to=state)
        except IllegalEvent:
            continue
        history.append(event)
    return history


@given(histories(), st.integers(0, 50))
@settings(derandomize=True)
def test_replaying_a_history_in_any_portions_gives_the_same_state_and_effects(history: list[Event], cut: int):
    whole, effects = apply(*history)
    first, first_effects = apply(*history[:cut])
    both, second_effects = apply(*history[cut:], to=first)
    assert both == whole
    assert (both.services_by, both.subscriptions_by) == (whole.services_by, whole.subscriptions_by)
    assert first_effects + second_effects == effects


@given(histories())
@settings(derandomize=True)
def test_every_event_survives_the_log(history: list[Event]):
    for revision, event in enumerate(history, start=1):
        record = encode_event(event, 5, "somebody")
        assert decode_event(LogEntry(revision, "registry", record)) == Occurrence(revision, 5, event)
        assert (record.actor, record.subject) == ("somebody", subject_of(event))


@given(histories())
@settings(derandomize=True)
def test_a_state_survives_its_snapshot_with_its_indexes(history: list[Event]):
    state, _ = apply(*history)
    again = decode_state(b"".join(encode_state(state)))
    assert again == state
    assert again.registry_id == state.registry_id
    assert (again.services_by, again.subscriptions_by) == (state.services_by, state.subscriptions_by)


def test_logs_and_snapshots_of_before_hosts_shared_services_are_read():
    state, _ = apply(*OFFERED)
    record = encode_event(OFFERED[1], 5, "somebody")
    older = replace(record, payload=record.payload.replace(b',"origin":""', b""))
    assert older != record
    assert decode_event(LogEntry(2, "registry", older)).event == OFFERED[1]
    snapshot = b"".join(encode_state(state))
    older_snapshot = snapshot.replace(b',"origin":""', b"").replace(b',"registry_id":""', b"")
    assert len(older_snapshot) == len(snapshot) - len(b',"origin":""') - len(b',"registry_id":""')
    assert decode_state(older_snapshot) == state


def test_a_host_gets_its_identity_once():
    state, effects = apply(RegistryFounded("r"))
    assert (state.registry_id, effects) == ("r", ())
    with pytest.raises(IllegalEvent):
        apply(RegistryFounded("another"), to=state)


def test_a_peers_services_are_announced_and_no_heartbeats_are_expected_of_them():
    copy = replace(SERVICE, origin="host-2", liveness_interval_s=None)
    state, effects = apply(*OFFERED[:1], PeerServicesChanged("host-2", PeerCursor("r", 1), (copy,)))
    assert effects == (ForgetHeartbeats("service-1"), AnnounceService(ChangeType.ADDED, copy, 2))
    assert dict(state.services_with(("app", "app-1"))) == {}
    # An application of this host under the same id takes nothing of the peer with it.
    state, effects = apply(AppLeft("app-1"), to=state)
    assert dict(state.services) == {"service-1": copy}
    state, effects = apply(PeerForgotten("host-2"), to=state)
    assert (dict(state.services), dict(state.peers)) == ({}, {})
    assert effects == (ForgetHeartbeats("service-1"), AnnounceService(ChangeType.REMOVED, copy, 4))


@pytest.mark.parametrize(
    "event",
    [
        ServiceUpdated(replace(SERVICE, origin="host-2")),
        ServiceRegistered(replace(SERVICE, service_id="new", origin="host-2")),
        PeerServicesChanged(
            "host-2", PeerCursor("r", 1), (replace(SERVICE, origin="host-2", liveness_interval_s=None),)
        ),
        PeerServicesChanged("host-2", PeerCursor("r", 1), removed=("service-1",)),
        PeerServicesChanged("host-2", PeerCursor("r", 1), (replace(SERVICE, service_id="new", origin="host-2"),)),
        PeerServicesChanged("host-2", PeerCursor("r", 1), (replace(SERVICE, service_id="new", origin="host-3"),)),
        PeerForgotten("host-2"),
    ],
)
def test_what_is_anothers_cannot_be_changed_by_an_event_either(event: Event):
    state, _ = apply(*OFFERED)
    with pytest.raises(IllegalEvent):
        apply(event, to=state)


@pytest.mark.parametrize(
    "payload", [b"prose", b"[]", b'{"format":2,"revision":1}', b'{"format":1,"revision":1}\n["apps","a",{}]', b""]
)
def test_refuses_a_snapshot_that_it_cannot_read(payload: bytes):
    with pytest.raises(IllegalEvent):
        decode_state(payload)


@given(histories())
@settings(derandomize=True)
def test_nothing_is_without_its_application_and_announcements_add_up(history: list[Event]):
    state, effects = apply(*history)
    own = [each for each in state.services.values() if not each.origin]
    assert {each.app_instance_id for each in own} <= set(state.apps)
    assert {each.app_instance_id for each in state.subscriptions.values()} <= {"", *state.apps}
    assert {each.origin for each in state.services.values()} <= {"", *state.peers}
    assert set(state.outboxes) == set(state.subscriptions)
    assert set(state.order) == {*state.apps, *state.services, *state.subscriptions}
    announced: dict[str, ServiceInfo] = {}
    for effect in effects:
        match effect:
            case AnnounceService(ChangeType.REMOVED, service):
                del announced[service.service_id]
            case AnnounceService(_, service):
                announced[service.service_id] = service
    assert announced == dict(state.services)


@given(histories())
@settings(derandomize=True)
def test_what_waits_for_a_subscriber_is_in_order_and_asked_to_be_delivered(history: list[Event]):
    state, effects = apply(*history)
    asked = {effect.subscription_id for effect in effects if isinstance(effect, DeliverNotifications)}
    for subscription_id, outbox in state.outboxes.items():
        sequences = [each.sequence for each in outbox.waiting]
        assert sequences == sorted(set(sequences))
        assert not sequences or subscription_id in asked


@settings(max_examples=100, derandomize=True)
@given(histories(), st.integers(0, 40))
def test_who_jumps_over_events_ends_with_the_same_things_to_do_as_who_was_told_of_each(history: list[Event], cut: int):
    before, first = apply(*history[:cut])
    after, rest = apply(*history[cut:], to=before)
    jumped, followed = standing(first, effects_between(before, after)), standing(first, rest)
    assert jumped == followed
    assert standing(effects_of(after)).awaited == followed.awaited


@dataclass
class Standing:
    """What effects amount to."""

    heartbeats: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, int] = field(default_factory=dict)
    announced: dict[str, ServiceInfo] = field(default_factory=dict)


def standing(*tellings: tuple[Effect, ...]) -> Standing:
    found = Standing()
    for effect in (each for effects in tellings for each in effects):
        match effect:
            case ExpectHeartbeats(service_id, interval_s):
                found.heartbeats[service_id] = interval_s
            case ForgetHeartbeats(service_id):
                found.heartbeats.pop(service_id, None)
            case AwaitTermination(app_id, deadline_unix_ns):
                found.awaited[app_id] = deadline_unix_ns
            case ForgetTermination(app_id) | ForgetExpiry(app_id):
                found.awaited.pop(app_id, None)
            case AwaitExpiry(subscription_id, at_unix_ns):
                found.awaited[subscription_id] = at_unix_ns
            case AnnounceService(ChangeType.REMOVED, service):
                found.announced.pop(service.service_id, None)
            case AnnounceService(_, service):
                found.announced[service.service_id] = service
    return found
