"""Instances that do not confirm their end in time are ended: by a clock of the test, through failures and restarts."""

from __future__ import annotations

import pytest

from mec_platform.domain.applications import AppDescription, AppState, OperationAction
from mec_platform.domain.locality import Locality
from mec_platform.registry.deadlines import RETRY_S
from mec_platform.registry.effects import ForgetTermination
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.host import HostRegistry
from mec_platform.registry.registry import Registry
from mec_platform.registry.sqlite.event_log import SqliteEventLog


class BrittleLog:
    """A log that refuses appends while a test says so."""

    def __init__(self, log: SqliteEventLog) -> None:
        self._log = log
        self.refuses = False

    def __getattr__(self, name):
        return getattr(self._log, name)

    async def append(self, *arguments):
        if self.refuses:
            raise LogUnavailable("the disk is full")
        return await self._log.append(*arguments)


@pytest.fixture
async def log(tmp_path):
    log = BrittleLog(await SqliteEventLog.open(tmp_path / "state.sqlite"))
    yield log
    await log.close()


def make_host(log, clock) -> tuple[HostRegistry, list]:
    """A host, and what ends it says are over, as they come."""
    host = HostRegistry(Registry(log, clock=clock), locality=Locality(mec_host="host-1"))
    ends: list[ForgetTermination] = []
    host.registry.add_listener(lambda effect: ends.append(effect) if isinstance(effect, ForgetTermination) else None)
    return host, ends


async def settle(host) -> None:
    """Returns once everything that was under way in the registry has happened."""
    for _ in range(10):
        await host.registry.commit(lambda state: None)


async def advance(host, clock, seconds: float) -> None:
    await clock.until_someone_sleeps()
    clock.advance(seconds)
    await settle(host)


async def begin_end(host, grace_s: int) -> str:
    app = await host.applications.register(AppDescription(name="greeter"))
    await host.applications.request_end(app.app_instance_id, OperationAction.TERMINATING, grace_s)
    return app.app_instance_id


async def test_ends_an_instance_when_its_time_is_over_and_not_before(log, clock):
    host, ends = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 10)
    await advance(host, clock, 9.9)
    assert host.applications.get(app_id).state is AppState.TERMINATING
    await advance(host, clock, 0.2)
    assert host.applications.get(app_id).state is AppState.TERMINATED
    assert ends == [ForgetTermination(app_id)]
    await host.stop()


async def test_a_confirmed_end_is_waited_for_no_more(log, clock):
    host, ends = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 10)
    await host.applications.confirm_end(app_id, OperationAction.TERMINATING)
    await host.applications.remove(app_id)
    await advance(host, clock, 11)
    assert ends == [ForgetTermination(app_id)] * 2
    await host.stop()


async def test_a_deadline_that_passed_while_the_platform_was_away_ends_the_instance_at_its_start(log, clock):
    host, _ = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 3600)
    await host.stop()
    clock.advance(4000)
    host, _ = make_host(log, clock)
    await host.start()
    await advance(host, clock, 0)
    assert host.applications.get(app_id).state is AppState.TERMINATED
    await host.stop()


async def test_a_clock_that_was_set_back_postpones_the_end(log, clock, monkeypatch):
    host, _ = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 10)
    unix_ns = clock.unix_ns
    monkeypatch.setattr(clock, "unix_ns", lambda: unix_ns() - 5 * 10**9)
    await advance(host, clock, 10)
    assert host.applications.get(app_id).state is AppState.TERMINATING
    await advance(host, clock, 5)
    assert host.applications.get(app_id).state is AppState.TERMINATED
    await host.stop()


async def test_a_clock_that_is_set_back_while_an_end_is_decided_postpones_it_too(log, clock, monkeypatch):
    host, _ = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 10)
    unix_ns, end_overdue = clock.unix_ns, host.applications.end_overdue

    async def set_back_and_end(app_instance_id):
        monkeypatch.setattr(clock, "unix_ns", lambda: unix_ns() - 5 * 10**9)
        monkeypatch.setattr(host.applications, "end_overdue", end_overdue)
        return await end_overdue(app_instance_id)

    monkeypatch.setattr(host.applications, "end_overdue", set_back_and_end)
    await advance(host, clock, 10)
    assert host.applications.get(app_id).state is AppState.TERMINATING
    await advance(host, clock, 5)
    assert host.applications.get(app_id).state is AppState.TERMINATED
    await host.stop()


async def test_an_end_that_cannot_be_written_is_tried_again(log, clock):
    host, _ = make_host(log, clock)
    await host.start()
    app_id = await begin_end(host, 10)
    log.refuses = True
    with pytest.raises(LogUnavailable):
        await advance(host, clock, 10)
    log.refuses = False
    await settle(host)
    assert host.applications.get(app_id).state is AppState.TERMINATING
    await advance(host, clock, RETRY_S)
    assert host.applications.get(app_id).state is AppState.TERMINATED
    await host.stop()
