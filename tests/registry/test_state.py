"""The registry's state machine: transitions as sentences, and what holds for every history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.applications import AppInstance, AppState
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    EndPoint,
    SerializerType,
    ServiceInfo,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.event_codec import KINDS, decode_event, encode_event
from mec_platform.registry.event_log import LogEntry, Record
from mec_platform.registry.state import (
    AnnounceService,
    AppConfirmedReady,
    AppLeft,
    AppRegistered,
    Effect,
    Event,
    ExpectHeartbeats,
    ForgetHeartbeats,
    IllegalEvent,
    RegistryState,
    ServiceRegistered,
    ServiceRemoved,
    ServiceStateChanged,
    ServiceUpdated,
    apply_events,
)

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
    return apply_events(state, enumerate(events, start=state.revision + 1))


def test_a_registered_service_is_announced_and_expected_to_send_heartbeats():
    state, effects = apply(*OFFERED)
    assert dict(state.services) == {"service-1": SERVICE}
    assert effects == (ExpectHeartbeats("service-1", 5), AnnounceService(ChangeType.ADDED, SERVICE))


def test_a_service_without_interval_is_not_expected_to_send_heartbeats():
    silent = replace(SERVICE, liveness_interval_s=None)
    _, effects = apply(AppRegistered(APP), ServiceRegistered(silent))
    assert effects == (ForgetHeartbeats("service-1"), AnnounceService(ChangeType.ADDED, silent))


def test_an_application_takes_its_services_and_no_others_with_it():
    other_app = replace(APP, app_instance_id="app-2")
    other_service = replace(SERVICE, service_id="service-2", app_instance_id="app-2")
    state, _ = apply(*OFFERED, AppRegistered(other_app), ServiceRegistered(other_service))
    state, effects = apply(AppLeft("app-1"), to=state)
    assert dict(state.apps) == {"app-2": other_app}
    assert dict(state.services) == {"service-2": other_service}
    assert effects == (ForgetHeartbeats("service-1"), AnnounceService(ChangeType.REMOVED, SERVICE))


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
    assert AnnounceService(change, after) in effects


def test_an_update_that_changes_nothing_is_not_announced():
    state, _ = apply(*OFFERED)
    _, effects = apply(ServiceUpdated(SERVICE), to=state)
    assert effects == (ExpectHeartbeats("service-1", 5),)


def test_a_suspended_service_is_still_expected_to_send_heartbeats():
    state, _ = apply(*OFFERED)
    suspended = replace(SERVICE, state=ServiceState.SUSPENDED)
    state, effects = apply(ServiceStateChanged("service-1", ServiceState.SUSPENDED), to=state)
    assert effects == (ExpectHeartbeats("service-1", 5), AnnounceService(ChangeType.STATE_CHANGED, suspended))


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
        apply_events(state, [(state.revision, AppLeft("app-1"))])


def test_refuses_to_read_an_entry_of_an_unknown_kind():
    with pytest.raises(IllegalEvent, match=r"app\.exploded"):
        decode_event(LogEntry(1, "registry", Record("app.exploded", b"{}")))


def histories() -> st.SearchStrategy[list[Event]]:
    """Sequences of events that are legal in their order, over a few ids so that they meet each other."""
    moves = st.tuples(
        st.sampled_from(sorted(KINDS)), st.integers(0, 2), st.integers(0, 2), st.sampled_from(ServiceState)
    )
    return st.lists(moves, max_size=40).map(legal_history)


def legal_history(moves: list[tuple[str, int, int, ServiceState]]) -> list[Event]:
    state, history = RegistryState(), []
    for kind, app_number, service_number, service_state in moves:
        app_id, service_id = f"app-{app_number}", f"service-{service_number}"
        app = replace(APP, app_instance_id=app_id)
        service = replace(SERVICE, service_id=service_id, app_instance_id=app_id, state=service_state)
        events: dict[str, Event] = {
            "app.registered": AppRegistered(app),
            "app.confirmed_ready": AppConfirmedReady(app_id),
            "app.left": AppLeft(app_id),
            "service.registered": ServiceRegistered(service),
            "service.updated": ServiceUpdated(service),
            "service.state_changed": ServiceStateChanged(service_id, service_state),
            "service.removed": ServiceRemoved(service_id),
        }
        try:
            state, _ = apply(events[kind], to=state)
        except IllegalEvent:
            continue
        history.append(events[kind])
    return history


@given(histories(), st.integers(0, 40))
@settings(derandomize=True, deadline=None)
def test_replaying_a_history_in_any_portions_gives_the_same_state_and_effects(history: list[Event], cut: int):
    whole, effects = apply(*history)
    first, first_effects = apply(*history[:cut])
    both, second_effects = apply(*history[cut:], to=first)
    assert both == whole
    assert first_effects + second_effects == effects


@given(histories())
@settings(derandomize=True, deadline=None)
def test_every_event_survives_the_log(history: list[Event]):
    for revision, event in enumerate(history, start=1):
        kind, payload = encode_event(event)
        assert decode_event(LogEntry(revision, "registry", Record(kind, payload))) == event


@given(histories())
@settings(derandomize=True, deadline=None)
def test_no_service_is_without_its_application_and_announcements_add_up(history: list[Event]):
    state, effects = apply(*history)
    assert {service.app_instance_id for service in state.services.values()} <= set(state.apps)
    announced: dict[str, ServiceInfo] = {}
    for effect in effects:
        match effect:
            case AnnounceService(ChangeType.REMOVED, service):
                del announced[service.service_id]
            case AnnounceService(_, service):
                announced[service.service_id] = service
    assert announced == dict(state.services)
