"""The event log in SQLite: order, compare-and-set, tails, durability, and errors that say what to do."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mec_platform.registry.errors import Compacted, LogUnavailable, RevisionConflict
from mec_platform.registry.event_log import AuditRecord, LogEntry, LogSnapshot, Record
from mec_platform.registry.sqlite.appending import LARGEST_STATEMENT
from mec_platform.registry.sqlite.event_log import SqliteEventLog


@pytest.fixture
async def log() -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(":memory:")
    yield log
    await log.close()


def record(payload: bytes = b"", kind: str = "kind", subject: str = "", actor: str = "") -> Record:
    return Record(kind, payload, subject, actor, at_unix_ns=1_700_000_000_000_000_000)


async def test_reads_what_was_appended_to_one_stream_in_order(log: SqliteEventLog):
    two = [record(b"1", subject="model", actor="control plane"), record(b"2")]
    assert await log.append("plans", two) == 2
    await log.append("registry", [record(b"x")])
    assert await log.append("plans", [record(b"3")]) == 3
    assert await log.read("plans") == [
        LogEntry(1, "plans", two[0]),
        LogEntry(2, "plans", two[1]),
        LogEntry(3, "plans", record(b"3")),
    ]
    assert [entry.payload for entry in await log.read("plans", after_revision=1)] == [b"2", b"3"]
    assert await log.read("nothing here") == []


async def test_revisions_of_each_stream_have_no_gaps_over_concurrent_appends(log: SqliteEventLog):
    revisions = await asyncio.gather(*(log.append(f"stream-{n % 3}", [record()]) for n in range(600)))
    assert [revisions[start::3] for start in range(3)] == [list(range(1, 201))] * 3


async def test_more_records_than_one_statement_takes_are_one_append(log: SqliteEventLog):
    records = [record(b"%d" % n) for n in range(3 * LARGEST_STATEMENT + 1)]
    assert await log.append("registry", records) == len(records)
    assert [entry.record for entry in await log.read("registry")] == records


async def test_any_text_and_any_bytes_come_back_as_they_were(log: SqliteEventLog):
    odd = Record("kind", bytes(range(256)), "sub'ject\x00\n\u20ac", 'ac"tor', 2**63 - 1)
    await log.append("registry", [odd])
    assert [entry.record for entry in await log.read("registry")] == [odd]


async def test_text_that_is_none_fails_its_writer_alone(log: SqliteEventLog):
    good, bad = await asyncio.gather(
        log.append("registry", [record()]),
        log.append("registry", [record(), record(subject="\ud800")]),
        return_exceptions=True,
    )
    assert good == 1
    assert isinstance(bad, UnicodeEncodeError)
    assert await log.append("registry", [record()]) == 2


async def test_a_number_beyond_64_bits_fails_who_brought_it_and_not_the_log(log: SqliteEventLog):
    with pytest.raises(OverflowError):
        await log.history("registry", before_revision=2**63)
    with pytest.raises(OverflowError):
        await log.append("registry", [Record("kind", b"", at_unix_ns=2**63)])
    assert await log.append("registry", [record()]) == 1


async def test_only_one_of_several_writers_wins_a_revision(log: SqliteEventLog):
    base = await log.append("plans", [record(b"base")])
    results = await asyncio.gather(
        *(log.append("plans", [record(b"next")], expected_revision=base) for _ in range(5)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [int] + [RevisionConflict] * 4
    assert len(await log.read("plans")) == 2


async def test_a_conflict_names_the_revision_to_continue_from(log: SqliteEventLog):
    last = await log.append("plans", [record()])
    with pytest.raises(RevisionConflict) as conflict:
        await log.append("plans", [record()], expected_revision=0)
    assert conflict.value.actual == last


async def test_other_streams_do_not_disturb_a_compare_and_set(log: SqliteEventLog):
    await log.append("registry", [record()])
    await log.append("plans", [record()], expected_revision=0)


async def test_a_tail_delivers_the_past_then_each_new_entry_once(log: SqliteEventLog):
    first = await log.append("plans", [record(b"1")])
    tail = log.tail("plans")
    assert (await anext(tail)).payload == b"1"
    waiting = asyncio.ensure_future(anext(tail))
    await log.append("registry", [record(b"not this one")])
    await log.append("plans", [record(b"2")])
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
    before = await log.append("plans", [record(b"kept")])
    await log.close()
    log = await SqliteEventLog.open(path)
    assert [entry.payload for entry in await log.read("plans")] == [b"kept"]
    assert await log.append("plans", [record()], expected_revision=before) > before
    await log.close()


async def test_closing_waits_for_what_was_accepted_and_refuses_the_rest(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    log = await SqliteEventLog.open(path)
    appends = [asyncio.ensure_future(log.append("plans", [record()])) for _ in range(20)]
    await log.read("plans")
    await log.close()
    assert len(await asyncio.gather(*appends)) == 20
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append("plans", [record()])


async def test_two_logs_over_one_file_share_revisions(tmp_path: Path):
    one = await SqliteEventLog.open(tmp_path / "log.sqlite")
    two = await SqliteEventLog.open(tmp_path / "log.sqlite")
    revision = await one.append("plans", [record()], expected_revision=0)
    with pytest.raises(RevisionConflict):
        await two.append("plans", [record()], expected_revision=0)
    assert await two.append("plans", [record()], expected_revision=revision) > revision
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


async def test_entries_of_the_first_version_are_readable_and_count_within_their_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "log.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_VERSION)
    connection.close()
    log = await SqliteEventLog.open(path)
    plans = [(entry.revision, entry.kind, entry.payload) for entry in await log.read("plans")]
    assert plans == [(1, "plan.committed", b"one"), (2, "plan.committed", b"two")]
    assert [entry.revision for entry in await log.read("registry")] == [1]
    assert await log.append("plans", [record()], expected_revision=2) == 3
    await log.close()
    assert "migrated from schema version 1 to 2" in caplog.text
    caplog.clear()
    await (await SqliteEventLog.open(path)).close()
    assert not [entry for entry in caplog.records if "migrated" in entry.message]


FIRST_VERSION = """
CREATE TABLE entries (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX entries_by_stream ON entries (stream, revision);
PRAGMA user_version = 1;
INSERT INTO entries (stream, kind, payload) VALUES
    ('plans', 'plan.committed', x'6f6e65'),
    ('registry', 'app.registered', x'7b7d'),
    ('plans', 'plan.committed', x'74776f');
"""


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_VERSION + "CREATE TABLE audit (in_the_way TEXT);")
    before = list(connection.iterdump())
    connection.close()
    with pytest.raises(LogUnavailable, match="audit"):
        await SqliteEventLog.open(path)
    with sqlite3.connect(path) as connection:
        assert list(connection.iterdump()) == before
    connection.close()


async def test_a_failing_disk_fails_the_append_and_not_the_log(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    log = await SqliteEventLog.open(path)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE entries RENAME TO elsewhere")
    with pytest.raises(LogUnavailable, match="no such table"):
        await log.append("plans", [record()])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO entries")
    connection.close()
    assert await log.append("plans", [record()]) > 0
    await log.close()


async def test_a_full_disk_appends_nothing_of_a_group_and_the_log_goes_on_when_there_is_room(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    log = await SqliteEventLog.open(path)
    await log.append("plans", [record(b"kept")])
    with limited_to(path.stat().st_size + 200_000):
        with pytest.raises(LogUnavailable, match="has room"):
            await log.append("plans", [record(b"x" * 300_000), record(b"small")])
        assert await log.append("plans", [record(b"fits")]) == 2
    assert await log.append("plans", [record(b"x" * 300_000)]) == 3
    assert [len(entry.payload) for entry in await log.read("plans")] == [4, 4, 300_000]
    await log.close()


@contextmanager
def limited_to(largest_file_bytes: int) -> Iterator[None]:
    """A disk that is full, as this process sees it: no file grows beyond that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_snapshot_takes_the_place_of_what_it_sums_up(log: SqliteEventLog):
    await log.append("registry", [record(b"1"), record(b"2"), record(b"3")])
    await log.append("plans", [record(b"untouched")])
    assert await log.read_snapshot("registry") is None
    await log.compact("registry", LogSnapshot(2, b"1 and 2"))
    assert await log.read_snapshot("registry") == LogSnapshot(2, b"1 and 2")
    assert [entry.payload for entry in await log.read("registry", after_revision=2)] == [b"3"]
    assert [entry.payload for entry in await log.read("plans")] == [b"untouched"]
    with pytest.raises(Compacted) as compacted:
        await log.read("registry", after_revision=1)
    assert compacted.value.revision == 2


async def test_a_tail_of_what_was_compacted_says_so(log: SqliteEventLog):
    await log.append("registry", [record(b"1"), record(b"2")])
    await log.compact("registry", LogSnapshot(2, b""))
    with pytest.raises(Compacted):
        await anext(log.tail("registry"))


async def test_revisions_go_on_behind_a_snapshot_of_everything_also_after_a_restart(tmp_path: Path):
    log = await SqliteEventLog.open(tmp_path / "log.sqlite")
    await log.append("registry", [record(), record()])
    await log.compact("registry", LogSnapshot(2, b"both"))
    assert await log.append("registry", [record(b"3")], expected_revision=2) == 3
    await log.compact("registry", LogSnapshot(3, b"all"))
    await log.close()
    log = await SqliteEventLog.open(tmp_path / "log.sqlite")
    with pytest.raises(RevisionConflict):
        await log.append("registry", [record()], expected_revision=0)
    assert await log.append("registry", [record()], expected_revision=3) == 4
    await log.close()


async def test_an_older_snapshot_than_the_newest_is_ignored(log: SqliteEventLog):
    await log.append("registry", [record(), record(), record()])
    await log.compact("registry", LogSnapshot(2, b"newer"))
    await log.compact("registry", LogSnapshot(1, b"older"))
    assert await log.read_snapshot("registry") == LogSnapshot(2, b"newer")


async def test_a_writer_who_missed_a_compaction_by_another_process_still_loses(tmp_path: Path):
    one = await SqliteEventLog.open(tmp_path / "log.sqlite")
    two = await SqliteEventLog.open(tmp_path / "log.sqlite")
    await one.append("registry", [record()])
    await two.append("registry", [record(), record()])
    await two.compact("registry", LogSnapshot(3, b""))
    with pytest.raises(RevisionConflict) as conflict:
        await one.append("registry", [record()], expected_revision=1)
    assert conflict.value.actual == 3
    assert await one.append("registry", [record()]) == 4
    await one.close()
    await two.close()


async def test_the_history_tells_who_changed_what_newest_first_and_outlives_compaction(log: SqliteEventLog):
    for n in range(1, 6):
        await log.append("registry", [record(b"secret", f"kind.{n}", f"subject-{n}", f"actor-{n}")])
    await log.append("plans", [record()])
    before = await log.history("registry")
    assert before[0] == AuditRecord(5, "registry", "kind.5", "subject-5", "actor-5", 1_700_000_000_000_000_000)
    assert [each.revision for each in before] == [5, 4, 3, 2, 1]
    await log.compact("registry", LogSnapshot(3, b""))
    assert await log.history("registry") == before
    assert [each.revision for each in await log.history("registry", before_revision=5, limit=3)] == [4, 3, 2]


async def test_the_file_and_those_beside_it_are_their_owners_alone(tmp_path: Path):
    log = await SqliteEventLog.open(tmp_path / "log.sqlite")
    await log.append("registry", [record(b"key")])
    modes = modes_in(tmp_path)
    await log.close()
    assert modes.keys() >= {"log.sqlite", "log.sqlite-wal", "log.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_an_existing_file_keeps_its_mode_and_a_warning_says_that_others_can_read_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "log.sqlite"
    path.touch(mode=0o644)
    await (await SqliteEventLog.open(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "chmod 600" in caplog.text


async def test_a_writer_waits_for_one_in_another_process(tmp_path: Path):
    log = await SqliteEventLog.open(tmp_path / "log.sqlite")
    await log.append("registry", [record()])
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(log.append("registry", [record()]))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    other.execute("COMMIT")
    other.close()
    assert await waiting == 2
    await log.close()


async def test_an_event_loop_that_never_rests_does_not_hold_up_appends(log: SqliteEventLog):
    turns = 0
    for _ in range(20):
        appended = asyncio.ensure_future(log.append("registry", [record()]))
        while not appended.done():
            sum(range(5000))  # A request's work. Without standing aside it takes 1,000 turns and more for each append.
            turns += 1
            assert turns < 5000
            await asyncio.sleep(0)
