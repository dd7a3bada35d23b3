"""Several models on one platform: each its own members, plan and epochs; requests that name none where that is clear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mec_platform.control_plane.deployments import MAX_DEPLOYMENTS, Deployments
from mec_platform.control_plane.journal import Journal
from mec_platform.control_plane.monitoring.estimates import MemberReported, MonitoringSettings, Refusal
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.selection import UnknownDeployment
from mec_platform.control_plane.tick import ControlSettings
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.registry.sqlite.event_log import SqliteEventLog

SETTINGS = ControlSettings(policy=PolicySettings(expected_nodes=100))
"""No plan is made here: the nodes of these tests have no addresses."""

Node = Callable[..., MemberReported]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    yield log
    await log.close()


@pytest.fixture
async def deployments(log: SqliteEventLog) -> AsyncIterator[Deployments]:
    deployments = Deployments(Journal(log), Policies(SETTINGS), MonitoringSettings(), manual=True)
    await deployments.start()
    yield deployments
    await deployments.stop()


@pytest.fixture
def node(world: SimpleNamespace, deployments: Deployments) -> Node:
    def build(name: str, model: str, role: str = "node", incarnation: str = "first") -> MemberReported:
        return MemberReported(
            at_s=deployments.loops[0].now_s,
            role="node" if role == "node" else "gateway",
            name=name,
            address=f"{name}:1",
            incarnation=incarnation,
            trusted=True,
            hardware=world.hardware,
            model=replace(world.model(), name=model),
            memory_bytes=10,
            block_time_s=0.001,
            head_time_s=0.002,
            prefill_block_time_s_per_row=0.0001,
            sessions=0,
            tokens_per_s=0.0,
            context_positions=0,
        )

    return build


async def test_a_platform_that_nobody_has_reported_to_can_be_asked_all_the_same(deployments: Deployments) -> None:
    assert deployments.names == ()
    assert deployments.select("").observe().model is None


async def test_every_model_gets_its_own_members(deployments: Deployments, node: Node) -> None:
    for name, model in (("a", "text"), ("b", "vision"), ("c", "text")):
        assert deployments.take_report(node(name, model)) is None
    assert deployments.names == ("text", "vision")
    seen = {model: [each.name for each in deployments.select(model).observe().nodes] for model in deployments.names}
    assert seen == {"text": ["a", "c"], "vision": ["b"]}


async def test_a_gateway_may_belong_to_several_deployments_and_fails_in_all_of_them(
    deployments: Deployments, node: Node
) -> None:
    for model in ("text", "vision"):
        deployments.take_report(node(f"{model}-node", model))
        assert deployments.take_report(node("gateway", model, role="gateway")) is None
    deployments.fail_member("gateway", "it hangs")
    assert [loop.observe().gateways for loop in deployments.loops] == [(), ()]


async def test_a_request_without_a_model_means_the_only_one_and_names_the_choices_where_there_are_more(
    deployments: Deployments, node: Node
) -> None:
    deployments.take_report(node("a", "text"))
    assert deployments.select("").model == "text"
    deployments.take_report(node("b", "vision"))
    with pytest.raises(UnknownDeployment, match="name one; deployed: text, vision"):
        deployments.select("")
    with pytest.raises(UnknownDeployment, match="no deployment of sound; deployed: text, vision"):
        deployments.select("sound")


async def test_a_node_cannot_take_a_name_that_lives_in_another_deployment(deployments: Deployments, node: Node) -> None:
    deployments.take_report(node("a", "text"))
    refusal = deployments.take_report(node("a", "vision", incarnation="second"))
    assert isinstance(refusal, Refusal)
    assert "serves text" in refusal.reason


async def test_a_platform_does_not_take_up_deployments_without_end(deployments: Deployments, node: Node) -> None:
    for number in range(MAX_DEPLOYMENTS):
        assert deployments.take_report(node(f"node-{number}", f"model-{number}")) is None
    assert isinstance(deployments.take_report(node("one-more", "model-too-many")), Refusal)
    assert len(deployments.loops) == MAX_DEPLOYMENTS


async def test_plans_of_two_models_have_epochs_of_their_own_and_are_found_again(
    log: SqliteEventLog, world: SimpleNamespace
) -> None:
    def plan(model: str, epoch: int) -> SplitPlan:
        return replace(world.plan(epoch, ("a", 0, 12)), model=model)

    journal = Journal(log)
    await journal.load()
    for committed in (plan("text", 1), plan("text", 2), plan("vision", 1), plan("text", 3)):
        assert await journal.commit(committed) is None
    again = Deployments(Journal(log), Policies(SETTINGS), MonitoringSettings(), manual=True)
    await again.start()
    assert {loop.model: loop.plan for loop in again.loops} == {"vision": plan("vision", 1), "text": plan("text", 3)}
    assert again.select("").model == "text"  # nobody serves either; it was planned for last
    await again.stop()
