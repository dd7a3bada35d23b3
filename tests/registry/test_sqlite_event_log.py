"""The event log in SQLite: order, compare-and-set, tails, durability, and errors that say what to do."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mec_platform.registry.errors import LogUnavailable, RevisionConflict
from mec_platform.registry.event_log import LogEntry
from mec_platform.registry.sqlite.event_log import SqliteEventLog


@pytest.fixture
async def log() -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(":memory:")
    yield log
    await log.close()


async def test_reads_what_was_appended_to_one_stream_in_order(log: SqliteEventLog):
    first = await log.append("plans", "plan.committed", b"1")
    await log.append("registry", "app.registered", b"x")
    second = await log.append("plans", "plan.committed", b"2")
    assert await log.read("plans") == [
        LogEntry(first, "plans", "plan.committed", b"1"),
        LogEntry(second, "plans", "plan.committed", b"2"),
    ]
    assert [entry.payload for entry in await log.read("plans", after_revision=first)] == [b"2"]
    assert await log.read("nothing here") == []


async def test_revisions_grow_strictly_over_concurrent_appends(log: SqliteEventLog):
    revisions = await asyncio.gather(*(log.append(f"stream-{n % 3}", "kind", b"") for n in range(500)))
    assert revisions == sorted(set(revisions))
    assert revisions[0] > 0


async def test_only_one_of_several_writers_wins_a_revision(log: SqliteEventLog):
    base = await log.append("plans", "plan.committed", b"base")
    results = await asyncio.gather(
        *(log.append("plans", "plan.committed", b"next", expected_revision=base) for _ in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [int] + [RevisionConflict] * 4
    assert len(await log.read("plans")) == 2


async def test_a_conflict_names_the_revision_to_continue_from(log: SqliteEventLog):
    last = await log.append("plans", "plan.committed", b"")
    with pytest.raises(RevisionConflict) as conflict:
        await log.append("plans", "plan.committed", b"", expected_revision=0)
    assert conflict.value.actual == last


async def test_other_streams_do_not_disturb_a_compare_and_set(log: SqliteEventLog):
    await log.append("registry", "app.registered", b"")
    await log.append("plans", "plan.committed", b"", expected_revision=0)


async def test_a_tail_delivers_the_past_then_each_new_entry_once(log: SqliteEventLog):
    first = await log.append("plans", "plan.committed", b"1")
    tail = log.tail("plans")
    assert (await anext(tail)).payload == b"1"
    waiting = asyncio.ensure_future(anext(tail))
    await log.append("registry", "app.registered", b"not this one")
    await log.append("plans", "plan.committed", b"2")
    assert (await waiting).payload == b"2"
    await tail.aclose()
    resumed = log.tail("plans", after_revision=first)
    assert (await anext(resumed)).payload == b"2"
    await resumed.aclose()


async def test_a_waiting_tail_ends_when_the_log_is_closed():
    log = await SqliteEventLog.open(":memory:")
    waiting = asyncio.ensure_future(anext(log.tail("plans")))
    await log.read("plans")
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await waiting


async def test_a_file_keeps_its_entries_and_its_revisions_over_a_restart(tmp_path: Path):
    path = tmp_path / "new folder" / "log.sqlite"
    log = await SqliteEventLog.open(path)
    before = await log.append("plans", "plan.committed", b"kept")
    await log.close()
    log = await SqliteEventLog.open(path)
    assert [entry.payload for entry in await log.read("plans")] == [b"kept"]
    assert await log.append("plans", "plan.committed", b"", expected_revision=before) > before
    await log.close()


async def test_closing_waits_for_what_was_accepted_and_refuses_the_rest(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    log = await SqliteEventLog.open(path)
    appends = [asyncio.ensure_future(log.append("plans", "kind", b"")) for _ in range(20)]
    await log.read("plans")
    await log.close()
    assert len(await asyncio.gather(*appends)) == 20
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append("plans", "kind", b"")


async def test_two_logs_over_one_file_share_revisions(tmp_path: Path):
    one = await SqliteEventLog.open(tmp_path / "log.sqlite")
    two = await SqliteEventLog.open(tmp_path / "log.sqlite")
    revision = await one.append("plans", "kind", b"", expected_revision=0)
    with pytest.raises(RevisionConflict):
        await two.append("plans", "kind", b"", expected_revision=0)
    assert await two.append("plans", "kind", b"", expected_revision=revision) > revision
    await one.close()
    await two.close()


async def test_says_which_file_is_no_event_log(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    path.write_text("this is prose, not a database, and it is long enough to be looked at" * 10)
    with pytest.raises(LogUnavailable, match=r"log\.sqlite"):
        await SqliteEventLog.open(path)


async def test_refuses_a_file_of_a_newer_version(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LogUnavailable, match="version 99"):
        await SqliteEventLog.open(path)


async def test_a_failing_disk_fails_the_append_and_not_the_log(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    log = await SqliteEventLog.open(path)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE entries RENAME TO elsewhere")
    with pytest.raises(LogUnavailable, match="no such table"):
        await log.append("plans", "kind", b"")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO entries")
    connection.close()
    assert await log.append("plans", "kind", b"") > 0
    await log.close()
