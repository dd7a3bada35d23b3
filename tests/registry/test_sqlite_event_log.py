"""What is particular to the event log in SQLite: its file, its migrations, its statements; see `test_event_log` for the rest."""

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

from mec_platform.registry.errors import LogUnavailable
from mec_platform.registry.event_log import Record
from mec_platform.registry.sqlite.appending import LARGEST_STATEMENT
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from tests.registry.test_event_log import record


@pytest.fixture
async def log() -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(":memory:")
    yield log
    await log.close()


async def test_more_records_than_one_statement_takes_are_one_append(log: SqliteEventLog):
    records = [record(b"%d" % n) for n in range(3 * LARGEST_STATEMENT + 1)]
    assert await log.append("registry", records) == len(records)
    assert [entry.record for entry in await log.read("registry")] == records


async def test_a_number_beyond_64_bits_fails_who_brought_it_and_not_the_log(log: SqliteEventLog):
    with pytest.raises(OverflowError):
        await log.history("registry", before_revision=2**63)
    with pytest.raises(OverflowError):
        await log.append("registry", [Record("kind", b"", at_unix_ns=2**63)])
    assert await log.append("registry", [record()]) == 1


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
