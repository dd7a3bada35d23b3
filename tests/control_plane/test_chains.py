"""Chains of one deployment over real gRPC and a real log: orders, decisions, epochs, and what members are told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from mec_platform.control_plane.broadcast.outcome import PlanRejected, ReconfigurationAborted
from mec_platform.control_plane.chain_control import ChainControl
from mec_platform.control_plane.control_loop import ControlLoop
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.deployments import Deployments
from mec_platform.control_plane.journal import ATTEMPTS, PLANS, Journal
from mec_platform.control_plane.monitoring.estimates import MemberReported, MonitoringSettings
from mec_platform.control_plane.orchestrator.decisions import AddChain, Decision, DropChain, Shed, Trigger, Wait
from mec_platform.control_plane.orchestrator.settings import Distrust, PolicySettings
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.standing import ChainEpoch, share_of_limit
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import PlanChange, SplitPlan, Stage
from mec_platform.registry.event_log import Record
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.control_plane.scripted_members import Member

BLOCKS = 12
Stages = list[tuple[str, int, int]]
FIRST: Stages = [("a", 0, BLOCKS)]
SECOND: Stages = [("b", 0, 5), ("c", 5, BLOCKS)]


def stages(places: Stages) -> list[Stage]:
    return [Stage(node, LayerRange(start, stop)) for node, start, stop in places]


class Site:
    """Nodes a to d and a gateway that report to one deployment, which does nothing that a test does not ask for."""

    def __init__(self, log: SqliteEventLog, world: SimpleNamespace) -> None:
        self.log = log
        self.world = world
        self.calls: list[tuple[str, str, Any]] = []
        self.members = {name: Member(name, self.calls) for name in ("a", "b", "c", "d", "gateway")}

    async def start(self, *, manual: bool = True) -> ControlLoop:
        settings = ControlSettings(policy=PolicySettings(expected_nodes=100))
        self.deployments = Deployments(Journal(self.log), Policies(settings), MonitoringSettings(), manual=manual)
        await self.deployments.start()
        for name, member in self.members.items():
            if not member.address:
                await member.start()
            assert self.deployments.take_report(self.report(name)) is None
        return self.deployments.loops[0]

    def report(self, name: str, sessions: int = 0) -> MemberReported:
        return MemberReported(
            at_s=asyncio.get_running_loop().time(),
            role="gateway" if name == "gateway" else "node",
            name=name,
            address=self.members[name].address,
            incarnation="first",
            trusted=True,
            hardware=self.world.hardware,
            model=self.world.model(BLOCKS),
            memory_bytes=100_000_000,
            block_time_s=0.001,
            head_time_s=0.001,
            prefill_block_time_s_per_row=0.0001,
            sessions=sessions,
            tokens_per_s=0.0,
            context_positions=0,
        )

    def asked(self, method: str) -> list[tuple[str, Any]]:
        return [(name, request) for name, called, request in self.calls if called == method]


@pytest.fixture
async def site(tmp_path: Path, world: SimpleNamespace) -> AsyncIterator[Site]:
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    site = Site(log, world)
    yield site
    await site.deployments.stop()
    for member in site.members.values():
        await member.server.stop(grace=None)
    await log.close()


async def test_chains_share_one_count_of_epochs_and_each_has_its_own_plan(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    added = await loop.apply_stages(stages(SECOND), "", add=True)
    assert (added.kind, added.plan.chain, added.plan.epoch, added.plan.parent_epoch) == (PlanChange.ADD_CHAIN, 1, 2, 0)
    again = await loop.apply_stages(stages([("d", 0, BLOCKS)]), "")
    assert (again.kind, again.plan.chain, again.plan.epoch, again.plan.parent_epoch) == (PlanChange.MIGRATE, 0, 3, 1)
    moved = await loop.apply_stages(stages([("b", 0, 7), ("c", 7, BLOCKS)]), "", 1)
    assert (moved.plan.chain, moved.plan.epoch, moved.plan.parent_epoch) == (1, 4, 2)
    assert [plan.epoch for plan in loop.plans] == [3, 4]
    assert loop.observe(0).replicas == (moved.plan,)
    assert loop.observe(1).replicas == (again.plan,)
    assert {name: loop.standing(name).epoch for name in site.members} == {"a": 4, "b": 4, "c": 4, "d": 3, "gateway": 4}


async def test_a_chain_that_is_dropped_is_switched_away_from_recorded_and_then_let_go(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    await loop.apply_stages(stages(SECOND), "", add=True)
    site.calls.clear()
    ended = await loop.drop_chain(1, "too much")
    assert (ended.kind, ended.outcome, ended.reason) == (PlanChange.DROP_CHAIN, "committed", "too much")
    assert site.calls[0][:2] == ("gateway", "SwitchPlan")
    assert sorted(name for name, _ in site.asked("CommitEpoch")) == ["b", "c"]
    assert {request.epoch for _, request in site.asked("CommitEpoch")} == {3}
    assert [plan.chain for plan in loop.plans] == [0]
    assert loop.standing("gateway").chains == (ChainEpoch(0, 1, dropped=False), ChainEpoch(1, 3, dropped=True))
    assert loop.standing("b").epoch == 3
    assert [entry.kind for entry in await site.log.read(PLANS)] == [
        "platform.leads",
        "plan.committed",
        "plan.committed",
        "plan.dropped",
    ]


async def test_chains_and_their_epochs_are_found_again_after_a_restart(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    await loop.apply_stages(stages(SECOND), "", add=True)
    await loop.drop_chain(0, "")
    await site.deployments.stop()
    loop = await site.start()
    assert [(plan.chain, plan.epoch) for plan in loop.plans] == [(1, 2)]
    assert loop.plan == loop.plan_of(1)
    added = await loop.apply_stages(stages(FIRST), "", add=True)
    assert (added.plan.chain, added.plan.epoch) == (0, 3 + ATTEMPTS + 1)  # what was attempted before is not known


async def test_records_that_name_no_chain_are_of_the_first(site: Site, world: SimpleNamespace) -> None:
    payload = b'{"epoch": 7, "parent_epoch": 6, "model": "model", "stages": [["a", 0, 12]]}'
    await site.log.append(PLANS, [Record("plan.committed", payload, subject="model")])
    loop = await site.start()
    assert loop.plans == (world.plan(7, *FIRST),)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (lambda loop: loop.drop_chain(0, ""), "chain 0 is the only one"),
        (lambda loop: loop.drop_chain(3, ""), "there is no chain 3; chains: 0"),
        (lambda loop: loop.apply_stages(stages(SECOND), "", 1), "there is no chain 1; chains: 0"),
        (lambda loop: loop.apply_stages(stages(FIRST), "", add=True), "node a is in chain 0"),
    ],
)
async def test_orders_that_do_not_fit_are_refused(site: Site, order: Callable[[ControlLoop], Any], reason: str) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    with pytest.raises(PlanRejected, match=reason):
        await order(loop)
    assert [plan.epoch for plan in loop.plans] == [1]


async def test_a_chain_that_takes_long_to_come_up_holds_up_no_other_and_keeps_its_nodes(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    site.members["c"].hang.add("LoadStage")
    site.members["c"].called.clear()
    adding = asyncio.ensure_future(loop.apply_stages(stages(SECOND), "", add=True))
    await site.members["c"].called.wait()
    assert [plan.nodes for plan in loop.observe(0).replicas] == [("b", "c")]
    with pytest.raises(PlanRejected, match="node b is in chain 1"):
        await loop.apply_stages(stages([("b", 0, BLOCKS)]), "")
    moved = await loop.apply_stages(stages([("d", 0, BLOCKS)]), "")
    assert moved.plan.epoch == 3
    # Epoch 3 is committed; b and c hold stages of 2, which they would let go of if they were told so.
    assert {name: loop.standing(name).epoch for name in "abcd"} == {"a": 3, "b": 1, "c": 1, "d": 3}
    loop.fail_member("c", "it hangs")
    with pytest.raises(ReconfigurationAborted, match="node c was lost"):
        await adding
    assert [plan.chain for plan in loop.plans] == [0]
    assert loop.observe(0).replicas == ()


async def test_an_addition_that_fails_is_taken_back_at_the_gateway(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    site.members["gateway"].fail["SwitchPlan"] = (grpc.StatusCode.UNAVAILABLE, "no link")
    with pytest.raises(ReconfigurationAborted, match="no link"):
        await loop.apply_stages(stages(SECOND), "", add=True)
    ((_, request),) = site.asked("RevertPlan")
    assert (request.plan.chain, list(request.plan.stages)) == (1, [])
    assert sorted(name for name, _ in site.asked("AbortEpoch")) == ["b", "c"]


async def test_a_change_is_given_up_on_request(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    with pytest.raises(PlanRejected, match="nothing is under way for chain 0"):
        await loop.abort(None, "")
    site.members["c"].hang.add("LoadStage")
    site.members["c"].called.clear()
    applying = asyncio.ensure_future(loop.apply_stages(stages(SECOND), ""))
    await site.members["c"].called.wait()
    ended = await loop.abort(0, "not now")
    assert (ended.outcome, ended.error) == ("aborted", "given up: not now")
    with pytest.raises(ReconfigurationAborted, match="given up: not now"):
        await applying
    assert [plan.nodes for plan in loop.plans] == [("a",)]


async def test_trust_that_is_revoked_while_a_change_is_under_way_ends_it(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    site.members["b"].hang.add("LoadStage")
    site.members["b"].called.clear()
    applying = asyncio.ensure_future(loop.apply_stages(stages(SECOND), ""))
    await site.members["b"].called.wait()
    site.deployments.change_policies(distrusting("c"))
    with pytest.raises(ReconfigurationAborted, match="c would hold blocks that need trust, and is not trusted"):
        await applying
    assert [plan.nodes for plan in loop.plans] == [("a",)]


async def test_a_plan_is_not_recorded_once_a_node_of_it_is_not_trusted(site: Site, monkeypatch: Any) -> None:
    """At the last moment: between two ticks, when all sessions have switched already."""
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    monkeypatch.setattr(loop, "wake", lambda: None)
    site.members["gateway"].hang.add("SwitchPlan")
    site.members["gateway"].called.clear()
    applying = asyncio.ensure_future(loop.apply_stages(stages(SECOND), ""))
    await site.members["gateway"].called.wait()
    monkeypatch.setattr(ChainControl, "give_up", lambda control, reason: None)
    site.deployments.change_policies(distrusting("c"))
    site.members["gateway"].go_on.set()
    with pytest.raises(ReconfigurationAborted, match="not recorded: c would hold blocks that need trust"):
        await applying
    assert [name for name, _ in site.asked("RevertPlan")] == ["gateway"]


async def test_a_plan_that_has_lost_trust_is_held_until_it_is_trusted_again(site: Site) -> None:
    loop = await site.start()
    await loop.apply_stages(stages(FIRST), "")
    await loop.apply_stages(stages(SECOND), "", add=True)
    assert loop.standing("gateway").held == ()
    for policies, held in (
        (distrusting("c"), {2: "c would hold blocks that need trust, and is not trusted"}),
        (distrusting("d"), {}),
    ):
        site.calls.clear()
        site.deployments.change_policies(policies)
        while not site.asked("HoldPlans"):
            site.members["gateway"].called.clear()
            await asyncio.wait_for(site.members["gateway"].called.wait(), 10)
        [(name, request)] = site.asked("HoldPlans")
        assert (name, {each.epoch: each.reason for each in request.held}) == ("gateway", held)
        assert {each.epoch: each.reason for each in loop.standing("gateway").held} == held


def distrusting(node: str) -> Policies:
    return Policies(ControlSettings(policy=PolicySettings(expected_nodes=100, distrust=Distrust(frozenset({node})))))


class Script:
    """In place of `Deployments.decide`: what the first chain decides next, once; otherwise nothing."""

    def __init__(self) -> None:
        self.next: deque[Callable[[Any], Decision]] = deque()

    def __call__(self, model: str, seen: Any, state: Any) -> tuple[Decision, Any, Any]:
        is_first = not any(plan.chain < seen.plan.chain for plan in seen.replicas)
        return (self.next.popleft()(seen) if self.next and is_first else Wait("nothing to do")), state, seen


async def test_decisions_about_chains_and_sessions_are_carried_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = await site.start(manual=False)
    await loop.apply_stages(stages(FIRST), "")
    script = Script()
    monkeypatch.setattr(site.deployments, "decide", script)
    changes = loop.watch_reconfigurations()
    await anext(changes)

    script.next.append(
        lambda seen: AddChain(SplitPlan(0, -1, "model", tuple(stages(SECOND))), "demand", Trigger.DEMAND, 1.0)
    )
    loop.wake()
    added = await anext(changes)
    assert (added.kind, added.plan.chain, added.plan.epoch, added.reason) == (PlanChange.ADD_CHAIN, 1, 2, "demand")

    told = loop.watch_decisions()
    script.next.append(lambda seen: Shed(seen.plan, 5, "too much", Trigger.DEMAND))
    loop.wake()
    while not isinstance((await anext(told)).decision, Shed):
        pass
    limit = loop.standing("gateway").limit
    assert limit is not None
    assert (limit.max_sessions, limit.reason) == (5, "too much")

    script.next.append(lambda seen: DropChain(seen.replicas[0], "calm", Trigger.DEMAND))
    script.next.append(lambda seen: Shed(seen.plan, None, "calm", Trigger.DEMAND))
    loop.wake()
    dropped = await anext(changes)
    assert (dropped.kind, dropped.plan.chain, dropped.outcome) == (PlanChange.DROP_CHAIN, 1, "committed")
    while (await anext(told)).decision != Shed(loop.plans[0], None, "calm", Trigger.DEMAND):
        pass
    assert loop.standing("gateway").limit is None
    await changes.aclose()  # type: ignore[attr-defined]
    await told.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("most", "sessions", "shares"),
    [
        (5, {"g": 0}, {"g": 5}),
        (5, {"g": 7}, {"g": 5}),
        (5, {"g": 1, "h": 1}, {"g": 3, "h": 2}),
        (10, {"g": 8, "h": 0}, {"g": 9, "h": 1}),
        (6, {"g": 8, "h": 4}, {"g": 4, "h": 2}),
        (0, {"g": 2, "h": 0}, {"g": 0, "h": 0}),
    ],
)
def test_gateways_share_a_limit_by_what_they_have(most: int, sessions: dict[str, int], shares: dict[str, int]) -> None:
    assert {name: share_of_limit(most, sessions, name) for name in sessions} == shares
    assert sum(shares.values()) <= most
