"""The journal over a real event log: the committed plan survives, and only one writer can commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mec_platform.control_plane import decision_log
from mec_platform.control_plane.decision_codec import DecisionRecord
from mec_platform.control_plane.decision_log import DECISIONS, read_decisions
from mec_platform.control_plane.journal import PLANS, Journal
from mec_platform.control_plane.orchestrator.decisions import Reconfigure
from mec_platform.control_plane.orchestrator.policy import PolicyState
from mec_platform.control_plane.tick import ControlSettings, tick
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.event_log import Record
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


def decided(seen: Snapshot) -> DecisionRecord:
    decision, _ = tick(seen, PolicyState(), ControlSettings())
    return DecisionRecord(decision, seen, PolicyState(), ControlSettings())


async def test_a_decision_is_kept_with_everything_that_it_looked_at(
    log: SqliteEventLog, world: SimpleNamespace
) -> None:
    record = decided(world.snapshot([world.node("a"), world.node("b")], lost_nodes=frozenset({"z", "y"})))
    assert isinstance(record.decision, Reconfigure)
    await Journal(log).decisions.note(record)
    (entry,) = await log.read(DECISIONS)
    assert (entry.kind, entry.record.subject) == ("decision.initial", "model")
    (noted,), unreadable = await read_decisions(log)
    assert (noted.record, noted.revision, unreadable) == (record, 1, 0)


async def test_entries_of_older_versions_are_counted_and_skipped(log: SqliteEventLog, world: SimpleNamespace) -> None:
    await log.append(DECISIONS, [Record("decision.initial", b'{"decision": {}, "snapshot": {}}')])
    await Journal(log).decisions.note(decided(world.snapshot([world.node("a")])))
    noted, unreadable = await read_decisions(log)
    assert (len(noted), unreadable) == (1, 1)


async def test_of_decisions_as_many_are_kept_as_are_useful(
    log: SqliteEventLog, world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "KEPT", 5)
    monkeypatch.setattr(decision_log, "COMPACT_EVERY", 3)
    decisions, record = Journal(log).decisions, decided(world.snapshot([world.node("a")]))
    for _ in range(20):
        await decisions.note(record)
    noted, _ = await read_decisions(log)
    assert [each.revision for each in noted] == [*range(noted[0].revision, 21)]
    assert 5 <= len(noted) < 5 + 3


async def test_a_keep_is_news_where_its_words_change_and_not_its_numbers(
    log: SqliteEventLog, world: SimpleNamespace
) -> None:
    decisions = Journal(log).decisions
    first = world.snapshot([world.node("a")], plan=world.plan(1, ("a", 0, 12)))
    await decisions.note(decided(first))
    slower = replace(first, now_s=first.now_s + 60, nodes=(world.node("a", block_time_s=0.0015),))
    busy = replace(slower, nodes=(world.node("a", block_time_s=0.0015, busy_share=0.95),))
    assert not decisions.is_news(decided(slower))
    assert decisions.is_news(decided(busy))
    assert not decisions.is_news(decided(replace(busy, now_s=first.now_s + 1)))


async def test_a_decision_that_cannot_be_kept_is_an_error(log: SqliteEventLog, world: SimpleNamespace) -> None:
    record = decided(world.snapshot([world.node("a")]))
    await log.close()
    with pytest.raises(LogUnavailable):
        await Journal(log).decisions.note(record)


async def test_decisions_and_plans_do_not_get_into_each_others_way(
    log: SqliteEventLog, world: SimpleNamespace, plan: Callable[..., SplitPlan]
) -> None:
    record = decided(world.snapshot([world.node("a")]))
    journal = Journal(log)
    for epoch in (1, 2, 3):
        await journal.decisions.note(record)
        assert await journal.commit(plan(epoch, ("a", 0, 12 - epoch), ("b", 12 - epoch, 12))) is None
    again = Journal(log)
    await again.load()
    assert again.plan == journal.plan
