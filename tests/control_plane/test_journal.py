"""The journal over a real event log: the committed plan survives, and only one writer can commit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mec_platform.control_plane.journal import DECISIONS, PLANS, Journal
from mec_platform.control_plane.orchestrator.decisions import Reconfigure
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.sqlite.event_log import SqliteEventLog


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(tmp_path / "state.sqlite")
    yield log
    await log.close()


@pytest.fixture
def plan(world: SimpleNamespace) -> Callable[..., SplitPlan]:
    return world.plan  # type: ignore[no-any-return]


async def test_a_new_log_holds_no_plan(log: SqliteEventLog) -> None:
    journal = Journal(log)
    await journal.load()
    assert journal.plan is None


async def test_the_committed_plan_is_found_again_after_a_restart(
    tmp_path: Path, plan: Callable[..., SplitPlan]
) -> None:
    first, second = plan(1, ("a", 0, 12)), plan(2, ("a", 0, 5), ("b", 5, 12))
    log = await SqliteEventLog.open(tmp_path / "kept.sqlite")
    journal = Journal(log)
    await journal.load()
    assert await journal.commit(first) is None
    assert await journal.commit(second) is None
    await log.close()
    log = await SqliteEventLog.open(tmp_path / "kept.sqlite")
    again = Journal(log)
    await again.load()
    assert again.plan == second
    assert await again.commit(plan(3, ("b", 0, 12))) is None
    await log.close()


async def test_committing_the_same_plan_again_writes_nothing(
    log: SqliteEventLog, plan: Callable[..., SplitPlan]
) -> None:
    journal = Journal(log)
    committed = plan(1, ("a", 0, 12))
    assert await journal.commit(committed) is None
    assert await journal.commit(committed) is None
    assert len(await log.read(PLANS)) == 1


async def test_of_two_writers_only_one_commits(log: SqliteEventLog, plan: Callable[..., SplitPlan]) -> None:
    winner, loser = Journal(log), Journal(log)
    await winner.load()
    await loser.load()
    assert await winner.commit(plan(1, ("a", 0, 12))) is None
    refusal = await loser.commit(plan(1, ("b", 0, 12)))
    assert refusal
    assert loser.plan is None
    assert len(await log.read(PLANS)) == 1
    await loser.load()
    assert loser.plan == winner.plan
    assert await loser.commit(plan(2, ("b", 0, 12))) is None


async def test_a_log_that_cannot_be_written_is_a_refusal_with_a_reason(
    log: SqliteEventLog, plan: Callable[..., SplitPlan]
) -> None:
    journal = Journal(log)
    await journal.commit(plan(1, ("a", 0, 12)))
    await log.close()
    assert await journal.commit(plan(2, ("b", 0, 12)))
    assert journal.plan == plan(1, ("a", 0, 12))


async def test_a_decision_is_kept_with_everything_that_it_looked_at(
    log: SqliteEventLog, world: SimpleNamespace
) -> None:
    seen = world.snapshot([world.node("a"), world.node("b")], lost_nodes=frozenset({"z", "y"}))
    decision, _ = tick(seen, PolicyState(), ControlSettings())
    assert isinstance(decision, Reconfigure)
    journal = Journal(log)
    await journal.note_decision(decision, seen)
    (entry,) = await log.read(DECISIONS)
    record: dict[str, Any] = json.loads(entry.payload)
    assert entry.kind == "decision.initial"
    assert record["decision"]["reason"] == decision.reason
    assert [stage["node"] for stage in record["decision"]["plan"]["stages"]] == list(decision.plan.nodes)
    assert [node["name"] for node in record["snapshot"]["nodes"]] == ["a", "b"]
    assert record["snapshot"]["lost_nodes"] == ["y", "z"]
    assert record["snapshot"]["now_s"] == seen.now_s
    assert len(record["snapshot"]["links"]) == len(seen.links)


async def test_a_decision_that_cannot_be_kept_is_an_error(log: SqliteEventLog, world: SimpleNamespace) -> None:
    seen = world.snapshot([world.node("a")])
    decision, _ = tick(seen, PolicyState(), ControlSettings())
    assert isinstance(decision, Reconfigure)
    await log.close()
    with pytest.raises(LogUnavailable):
        await Journal(log).note_decision(decision, seen)


async def test_decisions_and_plans_do_not_get_into_each_others_way(
    log: SqliteEventLog, world: SimpleNamespace, plan: Callable[..., SplitPlan]
) -> None:
    seen = world.snapshot([world.node("a")])
    decision, _ = tick(seen, PolicyState(), ControlSettings())
    assert isinstance(decision, Reconfigure)
    journal = Journal(log)
    for epoch in (1, 2, 3):
        await journal.note_decision(decision, seen)
        assert await journal.commit(plan(epoch, ("a", 0, 12 - epoch), ("b", 12 - epoch, 12))) is None
    again = Journal(log)
    await again.load()
    assert again.plan == journal.plan
