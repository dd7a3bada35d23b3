"""From missed heartbeats to eviction, over a real log: what is suspended, what is removed, and what must not be."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.services import ServiceState
from mec_platform.domain.subscriptions import ChangeType
from mec_platform.registry.effects import AnnounceService
from mec_platform.registry.errors import UnknownService
from mec_platform.registry.mass_expiry import MassExpirySettings
from mec_platform.registry.registry import STREAM
from tests.registry.services import GREETING, make_app, running_host

MANY = 40


async def register_many(host, count=MANY, description=GREETING):
    app_id = await make_app(host)
    services = await asyncio.gather(*(host.services.register_service(app_id, description) for _ in range(count)))
    return [service.service_id for service in services]


async def test_a_silent_service_is_suspended_and_after_its_intervals_removed_with_an_announcement(clock):
    async with running_host(clock) as host:
        (service_id,) = await register_many(host, 1)
        told = []
        host.registry.add_listener(lambda effect: told.append(effect) if isinstance(effect, AnnounceService) else None)
        clock.now_s += 10.5
        assert await host.services.suspend_overdue() == [service_id]
        clock.now_s += 29.9
        await host.services.suspend_overdue()
        assert host.services.service(service_id).state is ServiceState.SUSPENDED
        clock.now_s += 0.1
        await host.services.suspend_overdue()
        with pytest.raises(UnknownService):
            host.services.service(service_id)
        assert [each.change for each in told] == [ChangeType.STATE_CHANGED, ChangeType.REMOVED]
        assert (host.services.watch.counts.suspensions, host.services.watch.counts.evictions) == (1, 1)
        assert (await host.services.renew([service_id])).unknown == (service_id,)
        audit = await host.log.history(STREAM, limit=1)
        assert (audit[0].kind, audit[0].actor) == ("service.removed", "platform")


async def test_a_service_that_was_registered_without_eviction_stays_suspended(clock):
    async with running_host(clock) as host:
        (service_id,) = await register_many(host, 1, replace(GREETING, evict_after_intervals=None))
        clock.now_s += 15
        await host.services.suspend_overdue()
        clock.now_s += 10**6
        await host.services.suspend_overdue()
        assert host.services.service(service_id).state is ServiceState.SUSPENDED


async def test_a_renewal_saves_a_suspended_service_and_an_inactive_one_that_is_silent_goes_too(clock):
    async with running_host(clock) as host:
        (saved,) = await register_many(host, 1)
        await register_many(host, 1, replace(GREETING, state=ServiceState.INACTIVE))
        clock.now_s += 11
        await host.services.suspend_overdue()
        renewal = await host.services.renew([saved])
        assert (renewal.shortest_interval_s, renewal.unknown) == (10, ())
        assert host.services.service(saved).state is ServiceState.ACTIVE
        for _ in range(4):
            clock.now_s += 8
            await host.services.renew([saved])
            await host.services.suspend_overdue()
        assert set(host.registry.state.services) == {saved}


async def test_after_a_restart_a_suspended_service_has_its_time_anew_and_then_goes(clock, tmp_path):
    async with running_host(clock, tmp_path / "log") as host:
        (service_id,) = await register_many(host, 1)
        clock.now_s += 11
        await host.services.suspend_overdue()
    clock.now_s += 10**6
    async with running_host(clock, tmp_path / "log") as host:
        await host.services.suspend_overdue()
        assert service_id in host.registry.state.services
        clock.now_s += 11
        await host.services.suspend_overdue()
        clock.now_s += 30
        await host.services.suspend_overdue()
        assert service_id not in host.registry.state.services


async def test_when_most_fall_silent_at_once_none_is_suspended_until_they_are_heard_of_again(clock, caplog):
    async with running_host(clock) as host:
        ids = await register_many(host)
        clock.now_s += 11
        assert await host.services.suspend_overdue() == []
        assert await host.services.suspend_overdue() == []
        assert host.services.watch.protection.is_on
        assert [each.levelname for each in caplog.records if "fell silent" in each.message] == ["ERROR"]
        await host.services.renew(ids[2:])
        assert sorted(await host.services.suspend_overdue()) == sorted(ids[:2])
        assert not host.services.watch.protection.is_on


async def test_the_protection_also_holds_back_evictions_that_are_due(clock):
    async with running_host(clock) as host:
        (first,) = await register_many(host, 1)
        clock.now_s += 11
        await host.services.suspend_overdue()
        ids = await register_many(host)
        clock.now_s += 29
        await host.services.renew(ids)
        clock.now_s += 11
        await host.services.suspend_overdue()
        assert host.services.watch.protection.is_on
        assert first in host.registry.state.services
        await host.services.renew(ids)
        await host.services.suspend_overdue()
        assert set(host.registry.state.services) == set(ids)


async def test_after_the_longest_protection_the_silent_are_suspended_and_have_their_time_to_eviction(clock):
    async with running_host(clock, mass_expiry=MassExpirySettings(longest_s=60)) as host:
        ids = await register_many(host)
        clock.now_s += 11
        assert await host.services.suspend_overdue() == []
        clock.now_s += 60
        assert sorted(await host.services.suspend_overdue()) == sorted(ids)
        clock.now_s += 29
        await host.services.suspend_overdue()
        assert len(host.registry.state.services) == MANY
        clock.now_s += 1
        await host.services.suspend_overdue()
        assert len(host.registry.state.services) == 0


async def test_a_few_that_die_among_many_are_suspended_at_once(clock):
    async with running_host(clock) as host:
        ids = await register_many(host)
        clock.now_s += 6
        await host.services.renew(ids[9:])
        clock.now_s += 5
        assert sorted(await host.services.suspend_overdue()) == sorted(ids[:9])


async def test_kpis_are_the_newest_and_end_with_their_service(clock):
    async with running_host(clock) as host:
        (service_id,) = await register_many(host, 1)
        kpis, now_ns = host.services.kpis, clock.unix_ns()
        newer, older = (Kpis(measured_unix_ns=now_ns + each, load=0.5) for each in (0, -1))
        assert kpis.update(service_id, newer, now_ns)
        assert not kpis.update(service_id, older, now_ns)
        assert not kpis.update(service_id, Kpis(measured_unix_ns=now_ns + 10**12), now_ns)
        assert not kpis.update("nobody", newer, now_ns)
        assert kpis.get(service_id) == newer
        service = host.services.service(service_id)
        await host.services.remove_service(service.app_instance_id, service_id)
        assert (kpis.get(service_id), len(kpis)) == (None, 0)
