"""A platform that begins to lead fences off the one before, and counts epochs from above all that that one may have used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mec_platform.control_plane.journal import ATTEMPTS, Journal
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.registry.sqlite.event_log import SqliteEventLog


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
