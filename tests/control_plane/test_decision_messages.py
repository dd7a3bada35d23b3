"""What watchers of decisions are told: kind, trigger, price and limit of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from mec_platform.control_plane.control_loop import DecisionMade
from mec_platform.control_plane.orchestrator.decisions import (
    AddChain,
    Decision,
    DropChain,
    Keep,
    Reconfigure,
    Shed,
    Trigger,
    Wait,
)
from mec_platform.control_plane.orchestrator.service import AdaptiveOrchestratorService
from mec_platform.domain.split_plan import PlanChange, SplitPlan
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import control_plane_pb2, control_plane_pb2_grpc


class Decided:
    """Deployments of which one has decided all this."""

    def __init__(self, decisions: list[Decision]) -> None:
        self._decisions = decisions

    def select(self, model: str) -> Decided:
        return self

    def addresses(self) -> dict[str, str]:
        return {"a": "10.0.0.1:50060"}

    def fail_member(self, name: str, reason: str) -> None:
        raise AssertionError("nobody failed")

    async def watch_decisions(self) -> AsyncIterator[DecisionMade]:
        for decision in self._decisions:
            yield DecisionMade(5.0, decision)


@pytest.fixture
def plan(world: SimpleNamespace) -> SplitPlan:
    found: SplitPlan = world.plan(3, ("a", 0, 12))
    return found


async def test_every_kind_of_decision_is_told_with_what_belongs_to_it(plan: SplitPlan) -> None:
    decisions: list[Decision] = [
        Wait("nothing yet"),
        Keep(plan, "fine", 9.0),
        Reconfigure(PlanChange.MIGRATE, plan, "b is slow", Trigger.NODE_SLOW, 9.0, 20.0, 230.0),
        AddChain(plan, "many", Trigger.SLO_AT_RISK, 8.0),
        DropChain(plan, "few", Trigger.DEMAND),
        Shed(plan, 7, "too many", Trigger.SLO_AT_RISK),
        Shed(plan, None, "not too many any more", Trigger.DEMAND),
    ]
    server = make_server()
    control_plane_pb2_grpc.add_AdaptiveOrchestratorServicer_to_server(
        AdaptiveOrchestratorService(Decided(decisions)), server
    )
    address = await start_server(server, "127.0.0.1", 0, ())
    async with open_channel(address) as channel:
        stub = control_plane_pb2_grpc.AdaptiveOrchestratorStub(channel)
        told = [each async for each in stub.WatchDecisions(control_plane_pb2.WatchDecisionsRequest())]
    await server.stop(None)
    assert [(each.kind, each.trigger, each.reason) for each in told] == [
        ("wait", "", "nothing yet"),
        ("keep", "", "fine"),
        ("migrate", "node_slow", "b is slow"),
        ("add_chain", "slo_at_risk", "many"),
        ("drop_chain", "demand", "few"),
        ("shed", "slo_at_risk", "too many"),
        ("admit", "demand", "not too many any more"),
    ]
    assert (told[2].cost_ms, told[2].current_cost_ms, told[2].switch_cost_ms) == (9.0, 20.0, 230.0)
    assert told[5].session_limit == 7
    assert not told[6].HasField("session_limit")
    assert all(each.plan.stages[0].address == "10.0.0.1:50060" for each in told[1:])
