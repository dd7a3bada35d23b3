"""Which platform's control plane acts where several share their plans: the one that leads, from what the others did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mec_platform.control_plane.broadcast.outcome import PlanRejected
from mec_platform.control_plane.control_loop import ControlLoop
from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MonitoringSettings
from mec_platform.control_plane.orchestrator.decisions import Wait
from mec_platform.control_plane.policy_file import Policies
from mec_platform.registry.leadership import LeadershipListener
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.control_plane.conftest import make_plan


class Elected:
    """Implements `Leadership`: a test is the electorate."""

    def __init__(self, is_leader: bool, leader: str) -> None:
        self.is_leader = is_leader
        self.leader = leader

    def add_listener(self, listener: LeadershipListener) -> None:
        raise AssertionError("the control plane asks before it acts")

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class SharedLog(SqliteEventLog):
    """One log object for two platforms in a process: each sees the other's appends in its tail."""

    is_shared = True


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SharedLog]:
    log = await SharedLog.open(tmp_path / "state.sqlite")
    yield log
    await log.close()


async def start(log: SharedLog, elected: Elected) -> Deployments:
    deployments = Deployments(Journal(log), Policies(), MonitoringSettings(), leadership=elected)
    await deployments.start()
    return deployments


async def first_decision(loop: ControlLoop) -> object:
    async with aclosing(loop.watch_decisions()) as decisions:  # type: ignore[type-var]
        return (await anext(decisions)).decision


async def test_a_platform_that_does_not_lead_waits_and_says_who_leads(log: SharedLog) -> None:
    deployments = await start(log, Elected(False, "platform-1:50051"))
    decision = await first_decision(deployments.loops[0])
    assert decision == Wait("platform-1:50051 leads: nodes, gateways and orders belong there")
    with pytest.raises(PlanRejected, match="platform-1:50051 leads"):
        await deployments.loops[0].apply_stages([], "asked for")
    await deployments.stop()


async def test_plans_that_another_platform_commits_are_seen_as_they_come(log: SharedLog) -> None:
    other = Journal(log)
    await other.load()
    journal = Journal(log)
    async with aclosing(journal.follow()) as plans:
        for epoch in (1, 2):
            assert await other.commit(make_plan(epoch, ("a", 0, 12))) is None
            assert (await anext(plans)).epoch == epoch
            assert journal.plan == make_plan(epoch, ("a", 0, 12))
    assert await journal.commit(make_plan(3, ("b", 0, 12))) is None


async def test_who_begins_to_lead_goes_on_from_what_the_last_leader_committed(log: SharedLog) -> None:
    elected = Elected(False, "platform-1:50051")
    deployments = await start(log, elected)
    other = Journal(log)
    await other.load()
    assert await other.commit(make_plan(7, ("a", 0, 12))) is None
    elected.is_leader = True
    (loop,) = deployments.loops
    with pytest.raises(PlanRejected, match="no edge node has reported a model yet"):
        await loop.apply_stages([], "asked for")
    assert deployments.select("").plan == make_plan(7, ("a", 0, 12))
    await deployments.stop()


async def test_who_has_ceased_to_lead_commits_nothing(log: SharedLog) -> None:
    elected = Elected(True, "")
    deployments = await start(log, elected)
    elected.is_leader = False
    assert await deployments.loops[0]._commit(make_plan(1, ("a", 0, 12))) == "this platform has ceased to lead"
    assert await log.read("plans") == []
    await deployments.stop()
