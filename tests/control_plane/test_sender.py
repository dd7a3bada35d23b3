"""The sender over real gRPC: which calls reach members, in which order, and what their failures come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from mec_platform.control_plane.broadcast.protocol import Deadlines, Phase, ReconfigurationState
from mec_platform.control_plane.broadcast.sender import Assignment, ReconfigurationSender
from mec_platform.domain.failures import FailureKind
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.rpc.convert import addresses_from_message, plan_from_message
from tests.control_plane.scripted_members import Member

PATIENT = Deadlines(prepare_s=30, switch_s=30, commit_s=30, abort_s=30)
DEAD_ADDRESS = "127.0.0.1:1"


class Site:
    """Nodes a, b, c and a gateway; the plan in force is a -> b and the new one a -> c."""

    def __init__(self, plan: Callable[..., SplitPlan]) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.recorded: list[SplitPlan] = []
        self.record_refusal: str | None = None
        self.members = {name: Member(name, self.calls) for name in ("a", "b", "c", "gateway")}
        self.old = plan(4, ("a", 0, 6), ("b", 6, 12))
        self.new = plan(5, ("a", 0, 8), ("c", 8, 12))

    def assignment(self, **changes: Any) -> Assignment:
        fields: dict[str, Any] = {
            "plan": self.new,
            "old_plan": self.old,
            "nodes": {name: self.members[name].address for name in "abc"},
            "gateways": {"gateway": self.members["gateway"].address},
            "lost": frozenset(),
            "transfer_mode": "pre_copy",
            "replay_ms": 250.0,
        }
        return Assignment(**(fields | changes))

    async def record(self, plan: SplitPlan) -> str | None:
        self.calls.append(("log", "record", plan))
        if self.record_refusal is None:
            self.recorded.append(plan)
        return self.record_refusal

    async def carry_out(self, deadlines: Deadlines = PATIENT, **changes: Any) -> ReconfigurationState:
        sender = ReconfigurationSender(self.record, deadlines)
        try:
            return await asyncio.wait_for(sender.carry_out(self.assignment(**changes)), 20)
        finally:
            await sender.close()

    def order(self) -> list[str]:
        """`member method` as they came; members that are called side by side are sorted."""
        groups: list[tuple[str, list[str]]] = []
        for name, method, _ in self.calls:
            if not groups or groups[-1][0] != method:
                groups.append((method, []))
            groups[-1][1].append(name)
        return [f"{method} {' '.join(sorted(names))}" for method, names in groups]

    def requests(self, method: str) -> dict[str, Any]:
        return {name: request for name, called, request in self.calls if called == method}


@pytest.fixture
async def site(world: SimpleNamespace) -> AsyncIterator[Site]:
    site = Site(world.plan)
    for member in site.members.values():
        await member.start()
    yield site
    for member in site.members.values():
        await member.server.stop(grace=None)


async def test_a_plan_is_prepared_switched_to_recorded_and_committed_in_this_order(site: Site) -> None:
    end = await site.carry_out()
    assert end.phase is Phase.DONE
    assert site.order() == ["LoadStage a c", "SwitchPlan gateway", "record log", "CommitEpoch a b c"]
    assert site.recorded == [site.new]


async def test_nodes_learn_their_stage_and_the_addresses_of_the_others(site: Site) -> None:
    await site.carry_out()
    loads = site.requests("LoadStage")
    assert {name: request.stage_index for name, request in loads.items()} == {"a": 0, "c": 1}
    assert plan_from_message(loads["a"].plan) == site.new
    assert addresses_from_message(loads["a"].plan) == {name: site.members[name].address for name in "ac"}
    assert {request.epoch for request in site.requests("CommitEpoch").values()} == {5}


async def test_the_gateway_learns_how_to_move_its_sessions(site: Site) -> None:
    await site.carry_out(lost=frozenset({"b"}), transfer_mode="replay")
    request = site.requests("SwitchPlan")["gateway"]
    assert plan_from_message(request.plan) == site.new
    assert list(request.lost_nodes) == ["b"]
    assert request.transfer_mode == "replay"
    assert "b" not in site.requests("CommitEpoch")


async def test_the_outcome_adds_up_what_members_report(site: Site) -> None:
    end = await site.carry_out()
    assert sorted(end.load_ms) == [("a", 12.5), ("c", 12.5)]
    assert (end.pause_ms_max, end.moved_bytes, end.replayed_tokens, len(end.switched)) == (7, 110, 40, 2)


async def test_without_gateways_the_plan_is_committed_at_once(site: Site) -> None:
    end = await site.carry_out(gateways={}, old_plan=None)
    assert end.phase is Phase.DONE
    assert site.order() == ["LoadStage a c", "record log", "CommitEpoch a c"]


async def test_a_stage_that_cannot_be_loaded_aborts_before_any_session_moves(site: Site) -> None:
    site.members["c"].fail["LoadStage"] = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too big for c")
    end = await site.carry_out()
    assert end.phase is Phase.ABORTED
    assert end.reason == "node c could not load its stage: too big for c"
    # A load that crosses its abort is aborted once more, so a may be told twice; nobody else hears of the plan.
    assert {line.split()[0] for line in site.order()} == {"LoadStage", "AbortEpoch"}
    assert set(site.requests("AbortEpoch")) == {"a", "c"}
    assert site.recorded == []


async def test_a_gateway_that_cannot_switch_goes_back_to_the_old_plan(site: Site) -> None:
    site.members["gateway"].fail["SwitchPlan"] = (grpc.StatusCode.UNAVAILABLE, "c does not answer")
    end = await site.carry_out()
    assert end.phase is Phase.ABORTED
    assert "c does not answer" in end.reason
    assert site.order() == ["LoadStage a c", "SwitchPlan gateway", "RevertPlan gateway", "AbortEpoch a c"]
    assert plan_from_message(site.requests("RevertPlan")["gateway"].plan) == site.old


async def test_a_plan_that_the_log_refuses_is_taken_back(site: Site) -> None:
    site.record_refusal = "another plan was first"
    end = await site.carry_out()
    assert end.phase is Phase.ABORTED
    assert "another plan was first" in end.reason
    assert site.order()[-2:] == ["RevertPlan gateway", "AbortEpoch a c"]
    assert site.requests("CommitEpoch") == {}


async def test_a_node_that_misses_the_commit_is_named_and_the_plan_stands(site: Site) -> None:
    site.members["b"].fail["CommitEpoch"] = (grpc.StatusCode.INTERNAL, "busy")
    end = await site.carry_out()
    assert end.phase is Phase.DONE
    assert end.missed == ("b (busy)",)
    assert "not confirmed by b (busy)" in end.reason


@pytest.mark.parametrize(
    ("member", "method", "deadlines", "reason"),
    [
        ("c", "LoadStage", Deadlines(0.3, 30, 30, 30), "no answer in time to load a stage from c"),
        ("gateway", "SwitchPlan", Deadlines(1.5, 0.1, 30, 30), "not switched in time by gateway"),
    ],
)
async def test_a_member_that_never_answers_is_given_up_at_the_deadline(
    site: Site, member: str, method: str, deadlines: Deadlines, reason: str
) -> None:
    site.members[member].hang.add(method)
    end = await site.carry_out(deadlines)
    assert end.phase is Phase.ABORTED
    assert reason in end.reason
    assert site.recorded == []


async def test_an_abort_that_nobody_answers_ends_too(site: Site) -> None:
    site.members["c"].fail["LoadStage"] = (grpc.StatusCode.INTERNAL, "no")
    site.members["a"].hang.add("AbortEpoch")
    end = await site.carry_out(Deadlines(0.3, 0.1, 0.1, 0.3))
    assert end.phase is Phase.ABORTED


async def test_word_of_a_lost_member_ends_the_wait_for_it(site: Site) -> None:
    site.members["c"].hang.add("LoadStage")
    sender = ReconfigurationSender(site.record, PATIENT)
    carrying = asyncio.ensure_future(sender.carry_out(site.assignment()))
    await asyncio.wait_for(site.members["c"].called.wait(), 10)
    sender.member_lost("b")  # not in the new plan: no reason to give up
    sender.member_lost("c")
    end = await asyncio.wait_for(carrying, 10)
    await sender.close()
    assert end.phase is Phase.ABORTED
    assert "node c was lost" in end.reason


async def test_a_member_that_hangs_is_told_and_not_waited_for(site: Site, silent_address: str) -> None:
    told: list[tuple[str, FailureKind]] = []
    sender = ReconfigurationSender(
        site.record, PATIENT, on_silent=lambda name, failure: told.append((name, failure.kind))
    )
    nodes = {"a": site.members["a"].address, "b": site.members["b"].address, "c": silent_address}
    end = await asyncio.wait_for(sender.carry_out(site.assignment(nodes=nodes)), 20)
    await sender.close()
    assert end.phase is Phase.ABORTED
    assert end.reason == "node c was lost while stages were loading"
    assert told == [("c", FailureKind.NOT_ANSWERING)]


async def test_a_change_is_given_up_on_request_and_not_after_it_is_committed(site: Site) -> None:
    site.members["gateway"].hang.add("SwitchPlan")
    sender = ReconfigurationSender(site.record, PATIENT)
    assert sender.request_abort("?") == "nothing has begun yet"
    carrying = asyncio.ensure_future(sender.carry_out(site.assignment()))
    await asyncio.wait_for(site.members["gateway"].called.wait(), 10)
    assert sender.request_abort("not now") is None
    end = await asyncio.wait_for(carrying, 10)
    assert (end.phase, end.reason) == (Phase.ABORTED, "not now")
    assert set(site.requests("RevertPlan")) == {"gateway"}
    assert set(site.requests("AbortEpoch")) == {"a", "c"}
    site.members["gateway"].hang.clear()
    await asyncio.wait_for(sender.carry_out(site.assignment(plan=replace(site.new, epoch=6))), 10)
    assert sender.request_abort("too late") == "epoch 6 is committed; apply another plan instead"
    await sender.close()


async def test_kv_of_a_node_that_is_not_trusted_any_more_is_not_used(site: Site) -> None:
    await site.carry_out(left=frozenset({"b"}))
    request = site.requests("SwitchPlan")["gateway"]
    assert list(request.lost_nodes) == ["b"]
    assert set(site.requests("CommitEpoch")) == {"a", "b", "c"}  # it is told, and lets go of what it holds


async def test_a_load_whose_weights_keep_arriving_outlasts_its_deadline(site: Site) -> None:
    site.members["c"].arrivals = 20
    sender = ReconfigurationSender(site.record, Deadlines(prepare_s=1, switch_s=30, commit_s=30, abort_s=30), 0.1)
    end = await asyncio.wait_for(sender.carry_out(site.assignment()), 20)
    await sender.close()
    assert end.phase is Phase.DONE


async def test_a_node_that_is_lost_from_the_start_is_not_even_called(site: Site) -> None:
    end = await site.carry_out(lost=frozenset({"c"}))
    assert end.phase is Phase.ABORTED
    assert site.calls == []


@pytest.mark.parametrize(
    ("nodes", "reason"), [({}, "the address of c is not known"), ({"c": DEAD_ADDRESS}, "node c could not load")]
)
async def test_a_node_that_cannot_be_reached_aborts(site: Site, nodes: dict[str, str], reason: str) -> None:
    addresses = {name: site.members[name].address for name in "ab"} | nodes
    end = await site.carry_out(nodes=addresses)
    assert end.phase is Phase.ABORTED
    assert reason in end.reason
    assert site.recorded == []


async def test_one_sender_carries_out_one_plan_after_the_other(site: Site, world: SimpleNamespace) -> None:
    sender = ReconfigurationSender(site.record, PATIENT)
    plans: Sequence[SplitPlan] = [world.plan(5, ("a", 0, 12)), world.plan(6, ("b", 0, 12)), world.plan(7, ("c", 0, 12))]
    before = site.old
    for plan in plans:
        sender.member_lost("a")  # word from before it began does not count
        end = await asyncio.wait_for(sender.carry_out(site.assignment(plan=plan, old_plan=before)), 10)
        assert end.phase is Phase.DONE
        before = plan
    await sender.close()
    assert site.recorded == list(plans)
