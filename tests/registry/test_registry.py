"""The registry's writer over a real log: groups, refusals, races, failing disks, snapshots, and who is told when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mec_platform.domain.applications import AppDescription, AppState
from mec_platform.domain.credentials import Scope
from mec_platform.domain.locality import Locality
from mec_platform.domain.services import (
    EndPoint,
    SerializerType,
    ServiceDescription,
    ServiceState,
    TransportInfo,
    TransportType,
)
from mec_platform.domain.subscriptions import Delivery, Subscription, Topic
from mec_platform.registry.actor import current_actor
from mec_platform.registry.effects import AnnounceService, DeliverNotifications, Effect, ExpectHeartbeats
from mec_platform.registry.errors import AppInstanceExists, LastAdministrator, LogUnavailable, UnknownAppInstance
from mec_platform.registry.event_log import LogSnapshot, Record
from mec_platform.registry.events import AppConfirmedReady, Event
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import STREAM, Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.registry.state import RegistryState
from mec_platform.registry.transitions import IllegalEvent

HOST = Locality(mec_host="host-1")
GREETING = ServiceDescription(
    name="greeting",
    version="1.0",
    state=ServiceState.ACTIVE,
    transport=TransportInfo(
        id="rest",
        name="REST",
        type=TransportType.REST_HTTP,
        protocol="HTTP",
        version="1.1",
        endpoint=EndPoint(uris=("http://127.0.0.1:9000/",)),
    ),
    serializer=SerializerType.JSON,
    liveness_interval_s=10,
)


class GatedLog(SqliteEventLog):
    """A real log that appends when a test lets it, counts its appends, and fails when it is told to."""

    appends = 0
    failure: LogUnavailable | None = None

    def gate(self) -> asyncio.Event:
        """Appends wait for the event that this returns; `reached` says that one does."""
        self._gate, self.reached = asyncio.Event(), asyncio.Event()
        return self._gate

    async def append(self, stream: str, records: list[Record], expected_revision: int | None = None) -> int:
        self.appends += 1
        if hasattr(self, "_gate"):
            self.reached.set()
            await self._gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().append(stream, records, expected_revision)


@pytest.fixture
async def log() -> AsyncIterator[GatedLog]:
    log = await GatedLog.open(":memory:")
    yield log
    await log.close()


@pytest.fixture
async def host(log: GatedLog, clock) -> AsyncIterator[HostRegistry]:
    host = make_host(log, clock)
    await host.start()
    yield host
    await host.stop()


def make_host(log: SqliteEventLog, clock, **options) -> HostRegistry:
    numbers = itertools.count(1)
    return HostRegistry(Registry(log, clock=clock, new_id=lambda: f"id-{next(numbers)}", **options), locality=HOST)


async def test_changes_that_wait_together_are_appended_together(host, log):
    gate = log.gate()
    names = [f"app-{number}" for number in range(50)]
    waiting = [asyncio.ensure_future(host.applications.register(AppDescription(name=name))) for name in names]
    await asyncio.sleep(0)
    gate.set()
    apps = await asyncio.gather(*waiting)
    assert [app.name for app in host.applications.all()] == names
    assert [app.name for app in apps] == names
    assert log.appends <= 2


async def test_nobody_sees_or_is_told_of_a_change_before_it_is_durable(host, log):
    told: list[Effect] = []
    host.registry.add_listener(told.append)
    app = await host.applications.register(AppDescription(name="greeter"))
    gate = log.gate()
    waiting = asyncio.ensure_future(host.services.register_service(app.app_instance_id, GREETING))
    await log.reached.wait()
    assert (told, len(host.registry.state.services)) == ([], 0)
    gate.set()
    service = await waiting
    assert told == [ExpectHeartbeats(service.service_id, 10), told[1]]
    assert isinstance(told[1], AnnounceService)


async def test_later_changes_of_a_group_see_the_earlier_ones(host, log):
    app = await host.applications.register(AppDescription(name="greeter"))
    gate = log.gate()
    results = asyncio.gather(
        host.applications.remove(app.app_instance_id),
        host.applications.remove(app.app_instance_id),
        host.services.register_service(app.app_instance_id, GREETING),
        return_exceptions=True,
    )
    gate.set()
    assert [type(result) for result in await results] == [type(None), UnknownAppInstance, UnknownAppInstance]


async def test_a_defect_in_one_decision_is_its_own_and_not_its_groups(host):
    def divide(state: RegistryState) -> Event:
        raise ZeroDivisionError(state.revision // 1)

    broken, app = await asyncio.gather(
        host.registry.commit(divide), host.applications.register(AppDescription(name="fine")), return_exceptions=True
    )
    assert isinstance(broken, ZeroDivisionError)
    assert host.applications.get(app.app_instance_id) == app


async def test_an_event_that_cannot_be_fails_who_wanted_it_and_not_the_writer(host):
    await host.applications.register(AppDescription(name="greeter"), app_instance_id="app-1")

    async def confirm(app_id: str) -> Event | None:
        return await host.registry.commit(lambda state: AppConfirmedReady(app_id))

    wrong, right = await asyncio.gather(confirm("unknown"), confirm("app-1"), return_exceptions=True)
    assert isinstance(wrong, IllegalEvent)
    assert right == AppConfirmedReady("app-1")
    assert host.applications.get("app-1").state is AppState.READY


async def test_the_id_of_an_application_instance_is_that_of_no_other_record(host):
    await host.applications.register(AppDescription(name="greeter"), app_instance_id="app-1")
    service = await host.services.register_service("app-1", GREETING)
    with pytest.raises(AppInstanceExists, match=f"{service.service_id}' is taken"):
        await host.applications.register(AppDescription(name="late"), app_instance_id=service.service_id)
    await host.applications.remove("app-1")
    assert host.registry.state == RegistryState(revision=3)


async def test_the_last_administrator_does_not_go_with_an_application_instance(host):
    await host.applications.register(AppDescription(name="greeter"), app_instance_id="app-1")
    await host.credentials.create([Scope.ADMIN], "app-1")
    with pytest.raises(LastAdministrator):
        await host.applications.remove("app-1")
    await host.credentials.create([Scope.ADMIN], "operator")
    await host.applications.remove("app-1")
    assert list(host.registry.state.clients) == ["operator"]


async def test_a_failing_log_refuses_the_change_and_takes_the_next(host, log):
    log.failure = LogUnavailable("disk full")
    with pytest.raises(LogUnavailable, match="disk full"):
        await host.applications.register(AppDescription(name="greeter"))
    assert host.applications.all() == []
    log.failure = None
    await host.applications.register(AppDescription(name="greeter"))
    assert [app.name for app in host.applications.all()] == ["greeter"]


async def test_a_change_whose_requester_has_gone_before_its_turn_does_not_happen(host, log):
    gate = log.gate()
    first = asyncio.ensure_future(host.applications.register(AppDescription(name="first")))
    await log.reached.wait()
    second = asyncio.ensure_future(host.applications.register(AppDescription(name="second")))
    await asyncio.sleep(0)
    second.cancel()
    gate.set()
    await first
    await host.applications.register(AppDescription(name="third"))
    assert [app.name for app in host.applications.all()] == ["first", "third"]


async def test_stopping_finishes_what_waits_and_refuses_the_rest(log, clock):
    host = make_host(log, clock)
    await host.start()
    waiting = asyncio.ensure_future(host.applications.register(AppDescription(name="greeter")))
    await asyncio.sleep(0)
    await host.stop()
    assert (await waiting).name == "greeter"
    with pytest.raises(LogUnavailable, match="does not run"):
        await host.applications.register(AppDescription(name="late"))


async def test_a_registry_that_lost_a_race_sees_what_the_other_wrote_and_decides_again(host, log, clock):
    other = HostRegistry(Registry(log, clock=clock), locality=HOST)
    await other.start()
    app = await host.applications.register(AppDescription(name="greeter"))
    await other.applications.register(AppDescription(name="late"))
    assert [app.name for app in other.applications.all()] == ["greeter", "late"]
    await other.applications.remove(app.app_instance_id)
    with pytest.raises(UnknownAppInstance):
        await host.services.register_service(app.app_instance_id, GREETING)
    assert host.registry.state == other.registry.state
    await other.stop()


async def test_a_snapshot_takes_the_place_of_the_log_and_loses_nothing(tmp_path: Path, clock):
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    host = make_host(log, clock)
    await host.start()
    app = await host.applications.register(AppDescription(name="greeter"))
    subscription = Subscription(
        subscription_id="",
        app_instance_id=app.app_instance_id,
        topic=Topic.SERVICE_AVAILABILITY,
        delivery=Delivery(callback_uri="http://127.0.0.1:9/"),
    )
    subscription = await host.subscriptions.subscribe(subscription)
    await host.services.register_service(app.app_instance_id, GREETING)
    await host.registry.compact()
    assert await log.read(STREAM, host.registry.state.revision) == []
    await host.applications.confirm_ready(app.app_instance_id)
    state = host.registry.state
    await host.stop()
    await log.close()

    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    assert [entry.kind for entry in await log.read(STREAM, state.revision - 1)] == ["app.confirmed_ready"]
    host = make_host(log, clock)
    told: list[Effect] = []
    host.registry.add_listener(told.append)
    await host.start()
    assert host.registry.state == state
    assert DeliverNotifications(subscription.subscription_id) in told
    assert len(host.subscriptions.waiting(subscription.subscription_id)) == 1
    await host.stop()
    await log.close()


async def test_the_log_is_compacted_when_it_has_grown(log, clock):
    host = make_host(log, clock, compact_after=20)
    await host.start()
    app = await host.applications.register(AppDescription(name="greeter"))
    while await log.read_snapshot(STREAM) is None:
        service = await host.services.register_service(app.app_instance_id, GREETING)
        await host.services.remove_service(app.app_instance_id, service.service_id)
    snapshot = await log.read_snapshot(STREAM)
    assert isinstance(snapshot, LogSnapshot)
    assert 20 <= snapshot.revision <= host.registry.state.revision
    await host.stop()


async def test_a_registry_that_was_overtaken_by_a_snapshot_takes_it_over(host, log, clock):
    other = HostRegistry(Registry(log, clock=clock), locality=HOST)
    await other.start()
    app = await host.applications.register(AppDescription(name="greeter"))
    await host.applications.confirm_ready(app.app_instance_id)
    await host.registry.compact()
    await other.applications.register(AppDescription(name="late"))
    assert other.applications.get(app.app_instance_id).state is AppState.READY
    assert [app.name for app in other.applications.all()] == ["greeter", "late"]
    await other.stop()


async def test_the_log_says_who_changed_what_and_when(host, log, clock):
    token = current_actor.set("operator")
    app = await host.applications.register(AppDescription(name="greeter"))
    current_actor.reset(token)
    await host.registry.commit(lambda state: AppConfirmedReady(app.app_instance_id))
    facts = [(each.kind, each.subject, each.actor, each.at_unix_ns) for each in await log.history(STREAM)]
    assert facts == [
        ("app.confirmed_ready", app.app_instance_id, "platform", clock.unix_ns()),
        ("app.registered", app.app_instance_id, "operator", clock.unix_ns()),
    ]
