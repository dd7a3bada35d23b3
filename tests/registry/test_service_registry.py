"""The registry over a real log: decisions, liveness, restarts, and several registries that share one log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mec_platform.domain.applications import AppDescription, AppState
from mec_platform.domain.locality import Locality, LocalityType
from mec_platform.domain.services import (
    CategoryRef,
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceQuery,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.effects import AnnounceService, Effect
from mec_platform.registry.errors import LivenessNotMonitored, UnknownAppInstance, UnknownService, UnknownTransport
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.leases import DEFAULT_INTERVAL_S, LONGEST_INTERVAL_S
from mec_platform.registry.liveness import LIVENESS_CHECK_S
from mec_platform.registry.registry import STREAM, Registry
from mec_platform.registry.service_registry import ServiceRegistry
from mec_platform.registry.sqlite.event_log import SqliteEventLog

HOST = Locality(mec_host="host-1", zone="north")
TRANSPORT = TransportInfo(
    id="rest",
    name="REST",
    type=TransportType.REST_HTTP,
    protocol="HTTP",
    version="1.1",
    endpoint=EndPoint(uris=("http://127.0.0.1:9000/",)),
)
GREETING = ServiceDescription(
    name="greeting",
    version="1.0",
    state=ServiceState.ACTIVE,
    transport=TRANSPORT,
    serializer=SerializerType.JSON,
    category=CategoryRef("urn:greetings", "greetings", "greetings", "1"),
    liveness_interval_s=10,
)
EVERYTHING = ServiceQuery()


@pytest.fixture
async def log() -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(":memory:")
    yield log
    await log.close()


@pytest.fixture
async def host(log, clock) -> AsyncIterator[HostRegistry]:
    numbers = itertools.count(1)
    registry = Registry(log, clock=clock, new_id=lambda: f"id-{next(numbers)}")
    host = HostRegistry(registry, locality=HOST, transports=[TRANSPORT])
    await host.start()
    yield host
    await host.stop()


@pytest.fixture
def registry(host: HostRegistry) -> ServiceRegistry:
    return host.services


async def offered(host: HostRegistry, description: ServiceDescription = GREETING) -> tuple[str, str]:
    app = await host.applications.register(AppDescription(name="greeter"))
    service = await host.services.register_service(app.app_instance_id, description)
    return app.app_instance_id, service.service_id


async def test_ids_and_place_are_the_platforms(host, registry):
    app = await host.applications.register(AppDescription(name="greeter", provider="someone"))
    service = await registry.register_service(app.app_instance_id, GREETING)
    assert (app.app_instance_id, service.service_id) == ("id-1", "id-2")
    assert (app.provider, app.locality, service.locality) == ("someone", HOST, HOST)


async def test_refuses_a_service_of_an_unknown_application_and_writes_nothing(registry, log):
    with pytest.raises(UnknownAppInstance):
        await registry.register_service("nobody", GREETING)
    assert await log.read(STREAM) == []


async def test_hides_services_of_other_applications(host, registry):
    _, service_id = await offered(host)
    stranger = await host.applications.register(AppDescription(name="stranger"))
    for attempt in (registry.remove_service, registry.heartbeat):
        with pytest.raises(UnknownService):
            await attempt(stranger.app_instance_id, service_id)
    assert registry.services(EVERYTHING, stranger.app_instance_id) == []
    assert len(registry.services(EVERYTHING)) == 1


async def test_removing_an_application_removes_its_services(host, registry):
    app_id, service_id = await offered(host)
    await host.applications.remove(app_id)
    assert registry.services(EVERYTHING) == []
    with pytest.raises(UnknownService):
        registry.service(service_id)
    with pytest.raises(UnknownAppInstance):
        await host.applications.remove(app_id)


async def test_confirming_readiness_twice_writes_once(host, log):
    app = await host.applications.register(AppDescription(name="greeter"))
    await host.applications.confirm_ready(app.app_instance_id)
    await host.applications.confirm_ready(app.app_instance_id)
    assert host.applications.get(app.app_instance_id).state is AppState.READY
    assert [entry.kind for entry in await log.read(STREAM)] == ["app.registered", "app.confirmed_ready"]


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        (ServiceQuery(names=frozenset({"greeting", "other"})), True),
        (ServiceQuery(names=frozenset({"other"})), False),
        (ServiceQuery(service_ids=frozenset({"id-2"})), True),
        (ServiceQuery(category_ids=frozenset({"greetings"})), True),
        (ServiceQuery(category_ids=frozenset({"other"})), False),
        (ServiceQuery(states=frozenset({ServiceState.SUSPENDED})), False),
        (ServiceQuery(scope_of_locality=LocalityType.ZONE), False),
        (ServiceQuery(consumed_local_only=True, is_local=True), True),
        (ServiceQuery(consumed_local_only=False), False),
        (ServiceQuery(names=frozenset({"greeting"}), is_local=False), False),
    ],
)
async def test_finds_what_every_attribute_of_a_query_matches(host, registry, query, matches):
    await offered(host)
    assert bool(registry.services(query)) is matches


@pytest.mark.parametrize(
    ("scope", "consumer", "local"),
    [
        (LocalityType.MEC_HOST, Locality(mec_host="host-1"), True),
        (LocalityType.MEC_HOST, Locality(mec_host="host-2", zone="north"), False),
        (LocalityType.ZONE, Locality(mec_host="host-2", zone="north"), True),
        (LocalityType.ZONE, Locality(mec_host="host-2", zone="south"), False),
        (LocalityType.ZONE, Locality(mec_host="host-2"), False),
        (LocalityType.NFVI_NODE, Locality(mec_host="host-1"), True),
    ],
)
def test_locality_depends_on_the_scope_and_on_the_consumer(scope, consumer, local):
    assert HOST.shares(scope, consumer) is local


@pytest.mark.parametrize(
    ("offered_s", "chosen_s"), [(None, None), (0, DEFAULT_INTERVAL_S), (10, 10), (10**9, LONGEST_INTERVAL_S)]
)
async def test_the_platform_chooses_the_liveness_interval(host, registry, offered_s, chosen_s):
    _, service_id = await offered(host, replace(GREETING, liveness_interval_s=offered_s))
    assert registry.service(service_id).liveness_interval_s == chosen_s


async def test_a_service_without_heartbeats_has_no_liveness_and_is_never_suspended(host, registry, clock):
    app_id, service_id = await offered(host, replace(GREETING, liveness_interval_s=None))
    clock.now_s += 10**6
    assert await registry.suspend_overdue() == []
    with pytest.raises(LivenessNotMonitored):
        registry.liveness(app_id, service_id)


async def test_a_missed_interval_suspends_and_a_heartbeat_brings_back(host, registry, clock):
    changes = []
    app_id, service_id = await offered(host)

    def note(effect: Effect) -> None:
        if isinstance(effect, AnnounceService):
            changes.append((effect.change, effect.service.state))

    host.registry.add_listener(note)
    clock.now_s += 14.9
    assert await registry.suspend_overdue() == []
    clock.now_s += 0.1
    assert await registry.suspend_overdue() == [service_id]
    assert await registry.suspend_overdue() == []
    assert registry.service(service_id).state is ServiceState.SUSPENDED
    assert (await registry.heartbeat(app_id, service_id)).state is ServiceState.ACTIVE
    assert changes == [
        (ChangeType.STATE_CHANGED, ServiceState.SUSPENDED),
        (ChangeType.STATE_CHANGED, ServiceState.ACTIVE),
    ]


async def test_heartbeats_keep_a_service_active_without_a_word_to_the_log(host, registry, clock, log):
    app_id, service_id = await offered(host)
    revision = registry.state.revision
    for _ in range(10):
        clock.now_s += 10
        await registry.heartbeat(app_id, service_id)
        assert await registry.suspend_overdue() == []
    assert registry.liveness(app_id, service_id).last_heartbeat_ns == clock.unix_ns()
    assert await log.read(STREAM, revision) == []


async def test_an_inactive_service_stays_as_its_owner_put_it(host, registry, clock):
    app_id, service_id = await offered(host, replace(GREETING, state=ServiceState.INACTIVE))
    clock.now_s += 100
    assert await registry.suspend_overdue() == []
    assert (await registry.heartbeat(app_id, service_id)).state is ServiceState.INACTIVE


async def test_an_update_keeps_the_agreed_interval_and_counts_as_a_heartbeat(host, registry, clock):
    app_id, service_id = await offered(host)
    clock.now_s += 14
    updated = replace(GREETING, version="2.0", liveness_interval_s=None)
    service = await registry.update_service(app_id, service_id, updated)
    assert (service.version, service.liveness_interval_s) == ("2.0", 10)
    clock.now_s += 14
    assert await registry.suspend_overdue() == []


async def test_the_liveness_watch_suspends_by_itself(host, registry, clock):
    _, service_id = await offered(host, replace(GREETING, liveness_interval_s=1))
    suspended = asyncio.Event()
    host.registry.add_listener(lambda effect: suspended.set())
    while not suspended.is_set():
        await clock.until_someone_sleeps()
        clock.advance(LIVENESS_CHECK_S)
        await asyncio.sleep(0)
    assert registry.service(service_id).state is ServiceState.SUSPENDED


async def test_time_during_which_the_platform_stood_still_is_given_back(host, registry, clock):
    _, service_id = await offered(host)
    await clock.until_someone_sleeps()
    clock.advance(1000)
    await clock.until_someone_sleeps()
    assert registry.service(service_id).state is ServiceState.ACTIVE


async def test_a_restart_keeps_everything_and_gives_every_service_a_full_interval(tmp_path: Path, clock):
    log = await SqliteEventLog.open(tmp_path / "registry.sqlite")
    host = HostRegistry(Registry(log, clock=clock), locality=HOST)
    await host.start()
    app_id, service_id = await offered(host)
    state = host.registry.state
    await host.stop()
    await log.close()

    clock.now_s += 1000
    log = await SqliteEventLog.open(tmp_path / "registry.sqlite")
    host = HostRegistry(Registry(log, clock=clock), locality=HOST)
    await host.start()
    assert host.registry.state == state
    clock.now_s += 14
    assert await host.services.suspend_overdue() == []
    assert (await host.services.heartbeat(app_id, service_id)).state is ServiceState.ACTIVE
    await host.stop()
    await log.close()


async def test_resolves_the_transports_that_the_platform_provides(registry):
    assert registry.transport("rest") is TRANSPORT
    with pytest.raises(UnknownTransport):
        registry.transport("pigeon")
