"""Several registries over one log: what one misses while another changes and sums up the log that both read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mec_platform.domain.applications import AppDescription, OperationAction
from mec_platform.domain.subscriptions import ChangeType, Delivery, Subscription, Topic
from mec_platform.registry.effects import AnnounceService, Effect, EndSubscription, ForgetHeartbeats, ForgetTermination
from mec_platform.registry.event_log import LogSnapshot
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.registry.conftest import ManualClock
from tests.registry.test_registry import GREETING, HOST


class RacedLog(SqliteEventLog):
    """A real log beside which something happens, once, just after its snapshot was looked for."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def read_snapshot(self, stream: str) -> LogSnapshot | None:
        snapshot = await super().read_snapshot(stream)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return snapshot


@pytest.fixture
async def log() -> AsyncIterator[RacedLog]:
    log = await RacedLog.open(":memory:")
    yield log
    await log.close()


@pytest.fixture
async def hosts(log: RacedLog, clock: ManualClock) -> AsyncIterator[list[HostRegistry]]:
    """Two, and the first has an application with a service and a subscription that the second knows of."""
    hosts = [HostRegistry(Registry(log, clock=clock), locality=HOST) for _ in range(2)]
    await hosts[0].start()
    await hosts[0].applications.register(AppDescription(name="greeter"), app_instance_id="app-1")
    await hosts[0].services.register_service("app-1", GREETING)
    wish = Delivery(callback_uri="http://192.0.2.1/")
    await hosts[0].subscriptions.subscribe(
        Subscription(subscription_id="", app_instance_id="app-1", topic=Topic.APP_TERMINATION, delivery=wish)
    )
    await hosts[1].start()
    yield hosts
    for host in hosts:
        await host.stop()


async def test_a_registry_that_missed_the_end_of_a_service_does_not_wait_for_its_heartbeats(hosts, clock):
    one, other = hosts
    await one.applications.remove("app-1")
    await one.registry.compact()
    await other.applications.register(AppDescription(name="second"))
    clock.advance(100)
    assert await other.services.suspend_overdue() == []


async def test_who_listens_learns_of_what_was_summed_up_before_it_was_read(hosts):
    one, other = hosts
    (service,) = one.registry.state.services.values()
    (subscription_id,) = one.registry.state.subscriptions
    await other.applications.request_end("app-1", OperationAction.STOPPING, 30)
    effects: list[Effect] = []
    other.registry.add_listener(effects.append)
    await one.applications.remove("app-1")
    await one.applications.register(AppDescription(name="second"), app_instance_id="app-2")
    added = await one.services.register_service("app-2", GREETING)
    await one.registry.compact()
    revision = one.registry.state.revision
    await other.applications.register(AppDescription(name="third"))
    assert effects[:5] == [
        ForgetHeartbeats(service.service_id),
        AnnounceService(ChangeType.REMOVED, service, revision),
        EndSubscription(subscription_id),
        ForgetTermination("app-1"),
        AnnounceService(ChangeType.ADDED, added, revision),
    ]


@pytest.mark.parametrize("afterwards", ["a change", "a start"])
async def test_a_log_that_is_compacted_while_it_is_read_is_read_again(log, hosts, clock, afterwards):
    one, other = hosts

    async def meanwhile() -> None:
        await one.registry.compact()

    await one.applications.describe("app-1", AppDescription(name="described"))
    log.meanwhile = meanwhile
    if afterwards == "a start":
        other = HostRegistry(Registry(log, clock=clock), locality=HOST)
        hosts.append(other)
        await other.start()
    else:
        await other.applications.confirm_ready("app-1")
        assert other.registry.state.revision == 5
    assert other.applications.get("app-1").name == "described"
