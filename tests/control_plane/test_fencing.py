"""A platform that begins to lead fences off the one before, and counts epochs from above all that that one may have used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest

from mec_platform.control_plane.broadcast.service import ReconfigurationBroadcastService
from mec_platform.control_plane.chains import Chains
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import ATTEMPTS, Journal
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.policy_file import Policies
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    yield log
    await log.close()


@pytest.fixture
def plan(world: SimpleNamespace) -> Callable[..., SplitPlan]:
    return world.plan  # type: ignore[no-any-return]


async def test_the_first_platform_of_all_counts_from_zero(log: SqliteEventLog) -> None:
    journal = Journal(log)
    await journal.begin_to_lead()
    assert journal.epochs_from == 0
    assert journal.plan is None


async def test_what_a_platform_commits_after_another_has_begun_to_lead_is_refused(
    log: SqliteEventLog, plan: Callable[..., SplitPlan]
) -> None:
    old, new = Journal(log), Journal(log)
    await old.begin_to_lead()
    assert await old.commit(plan(1, ("a", 0, 12))) is None
    await new.begin_to_lead()
    assert await old.commit(plan(2, ("b", 0, 12))) is not None
    assert await new.commit(plan(new.epochs_from + 1, ("c", 0, 12))) is None
    assert new.plan is not None
    assert new.plan.nodes == ("c",)


async def test_epochs_go_on_above_all_that_was_attempted_and_never_committed(
    log: SqliteEventLog, plan: Callable[..., SplitPlan]
) -> None:
    first = Journal(log)
    await first.begin_to_lead()
    committed = plan(7, ("a", 0, 12))
    assert await first.commit(committed) is None
    attempts = range(8, 8 + 3 * ATTEMPTS)
    for attempt in attempts:
        await first.allow_epoch(committed.model, attempt)
    second = Journal(log)
    await second.begin_to_lead()
    assert second.epochs_from > attempts[-1]
    third = Journal(log)
    await third.begin_to_lead()
    assert third.epochs_from > second.epochs_from


async def test_a_platform_fences_once_while_it_leads_and_again_when_it_leads_again(log: SqliteEventLog) -> None:
    journal = Journal(log)
    await journal.begin_to_lead()
    await journal.begin_to_lead()
    assert journal.epochs_from == 0
    journal.cease_to_lead()
    await journal.begin_to_lead()
    assert journal.epochs_from == ATTEMPTS


async def test_plans_of_a_platform_that_knew_no_fences_are_counted(
    log: SqliteEventLog, plan: Callable[..., SplitPlan]
) -> None:
    unaware = Journal(log)
    await unaware.load()
    assert await unaware.commit(plan(5, ("a", 0, 12))) is None
    journal = Journal(log)
    await journal.begin_to_lead()
    assert journal.epochs_from == 5 + ATTEMPTS


async def test_an_epoch_is_alive_as_soon_as_it_is_given_out(
    log: SqliteEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply to a report that says otherwise would have a node drop the stage that it is about to be given."""
    journal, noted = Journal(log), asyncio.Event()
    await journal.begin_to_lead()
    chains = Chains("model", journal, journal.commit, dict, frozenset, lambda name, failure: None)
    chains.begin_to_lead()

    async def slow(model: str, epoch: int) -> None:
        await noted.wait()

    monkeypatch.setattr(journal, "allow_epoch", slow)
    async with asyncio.TaskGroup() as tasks:
        attempt = tasks.create_task(chains._next_epoch())
        await asyncio.sleep(0)
        assert chains.living_epoch == 1
        noted.set()
    assert attempt.result() == 1


class SilentLog(SqliteEventLog):
    """A log that answers until `silent`: a disk that is full, or a store that is cut off."""

    silent = False

    async def append(self, *args: object, **kwargs: object) -> int:
        if self.silent:
            raise LogUnavailable("the disk is full; make room and try again")
        return await super().append(*args, **kwargs)  # type: ignore[arg-type]


async def test_an_order_that_the_log_does_not_take_is_answered_in_words(tmp_path: Path) -> None:
    log = await SilentLog.open(tmp_path / "full.sqlite")
    assert isinstance(log, SilentLog)
    log.silent = True
    deployments = Deployments(Journal(log), Policies(ControlSettings()), MonitoringSettings())
    await deployments.start()
    server = make_server()
    control_plane_pb2_grpc.add_ReconfigurationBroadcastServicer_to_server(
        ReconfigurationBroadcastService(deployments), server
    )
    address = await start_server(server, "127.0.0.1", 0, [])
    async with open_channel(address) as channel:
        stub = control_plane_pb2_grpc.ReconfigurationBroadcastStub(channel)
        for call in (
            stub.ApplyPlan(control_plane_pb2.ApplyPlanRequest()),
            stub.DropChain(control_plane_pb2.DropChainRequest(chain=1)),
            stub.AbortReconfiguration(control_plane_pb2.AbortReconfigurationRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="the disk is full") as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(grace=None)
    await deployments.stop()
    await log.close()
