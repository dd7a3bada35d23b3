"""Backups of a log that is written meanwhile, and restoring them: whole or not at all, and never under a platform."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mec_platform.registry.errors import BackupError, LogUnavailable
from mec_platform.registry.event_log import LogSnapshot, Record
from mec_platform.registry.sqlite.backup import restore_backup, save_backup
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.registry.sqlite.lock import exclusive_lock
from tests.registry.test_sqlite_event_log import FIRST_VERSION


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.fixture
async def log(state: Path) -> AsyncIterator[SqliteEventLog]:
    log = await SqliteEventLog.open(state)
    yield log
    await log.close()


def silently(done: int, pages: int) -> None:
    """Progress that nobody looks at."""


async def payloads(path: Path, stream: str = "registry") -> list[bytes]:
    log = await SqliteEventLog.open(path)
    entries = await log.read(stream)
    await log.close()
    return [entry.payload for entry in entries]


async def test_a_backup_of_a_log_that_is_written_meanwhile_is_one_moment_of_it(
    log: SqliteEventLog, state: Path, tmp_path: Path
):
    await log.append("registry", [Record("kind", b"x" * 4000) for _ in range(3000)])
    seen: list[tuple[int, int]] = []

    async def write() -> int:
        while not copying.done():
            last = await log.append("registry", [Record("kind", b"later")])
        return last

    copying = asyncio.ensure_future(
        asyncio.to_thread(
            save_backup,
            state,
            tmp_path / "copy.sqlite",
            replace=False,
            on_progress=lambda done, pages: seen.append((done, pages)),
        )
    )
    last = await write()
    facts = await copying
    assert seen[-1][0] == seen[-1][1] > 1024
    assert len(seen) == len({done for done, _ in seen}) > 1, "it began anew"
    assert 3000 <= facts.revisions["registry"] <= last
    assert len(await payloads(tmp_path / "copy.sqlite")) == facts.revisions["registry"]


async def test_a_backup_is_one_file_for_its_owner_alone(log: SqliteEventLog, state: Path, tmp_path: Path):
    await log.append("registry", [Record("kind", b"key")])
    folder = tmp_path / "backups"
    folder.mkdir()
    facts = save_backup(state, folder / "copy.sqlite", replace=False, on_progress=silently)
    assert [path.name for path in folder.iterdir()] == ["copy.sqlite"]
    assert stat.S_IMODE(facts.path.stat().st_mode) == 0o600
    assert facts.size_bytes == facts.path.stat().st_size
    assert facts.schema_version == 2


async def test_a_backup_replaces_another_one_only_where_told_to(log: SqliteEventLog, state: Path, tmp_path: Path):
    target = tmp_path / "copy.sqlite"
    target.write_text("precious")
    with pytest.raises(BackupError, match="--force"):
        save_backup(state, target, replace=False, on_progress=silently)
    assert target.read_text() == "precious"
    assert save_backup(state, target, replace=True, on_progress=silently).path == target
    with pytest.raises(BackupError, match="itself"):
        save_backup(state, state, replace=True, on_progress=silently)


def test_what_is_no_event_log_is_not_copied(tmp_path: Path):
    prose, empty, newer = tmp_path / "prose", tmp_path / "empty", tmp_path / "newer"
    prose.write_text("this is prose, not a database, and it is long enough to be looked at" * 10)
    empty.touch()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for path, words in ((prose, "not a database"), (empty, "no event log"), (newer, "version 99")):
        with pytest.raises(BackupError, match=words):
            save_backup(path, tmp_path / "copy", replace=False, on_progress=silently)
        with pytest.raises(BackupError, match=words):
            restore_backup(path, tmp_path / "state", on_progress=silently)
    with pytest.raises(BackupError, match="no "):
        save_backup(tmp_path / "missing", tmp_path / "copy", replace=False, on_progress=silently)
    assert {path.name for path in tmp_path.iterdir()} - {"state.lock"} <= {
        name for path in (prose, empty, newer) for name in (path.name, f"{path.name}.lock")
    }


async def test_a_restored_state_is_the_backup_and_the_one_before_it_is_kept(state: Path, tmp_path: Path):
    log = await SqliteEventLog.open(state)
    await log.append("registry", [Record("kind", b"1"), Record("kind", b"2")])
    await log.compact("registry", LogSnapshot(2, b"1 and 2"))
    await log.append("plans", [Record("kind", b"plan")])
    save_backup(state, tmp_path / "copy.sqlite", replace=False, on_progress=silently)
    await log.append("plans", [Record("kind", b"later")])
    await log.close()
    facts, kept = restore_backup(tmp_path / "copy.sqlite", state, on_progress=silently)
    assert facts.revisions == {"plans": 1, "registry": 2}
    assert await payloads(state, "plans") == [b"plan"]
    assert kept is not None
    assert await payloads(kept, "plans") == [b"plan", b"later"]
    with pytest.raises(BackupError, match="move it away"):
        restore_backup(tmp_path / "copy.sqlite", state, on_progress=silently)


async def test_what_a_killed_platform_left_beside_the_file_is_kept_with_it_and_not_played_into_the_backup(
    log: SqliteEventLog, state: Path, tmp_path: Path
):
    await log.append("registry", [Record("kind", b"1")])
    save_backup(state, tmp_path / "copy.sqlite", replace=False, on_progress=silently)
    await log.append("registry", [Record("kind", b"2")])
    killed = tmp_path / "killed.sqlite"
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{state}{suffix}", f"{killed}{suffix}")
    _, kept = restore_backup(tmp_path / "copy.sqlite", killed, on_progress=silently)
    assert kept is not None
    assert await payloads(killed) == [b"1"]
    assert await payloads(kept) == [b"1", b"2"]


def test_a_damaged_backup_changes_nothing(state: Path, tmp_path: Path):
    async def write() -> None:
        log = await SqliteEventLog.open(state)
        await log.append("registry", [Record("kind", b"x" * 4000) for _ in range(50)])
        await log.close()

    asyncio.run(write())
    backup = save_backup(state, tmp_path / "copy.sqlite", replace=False, on_progress=silently).path
    content = bytearray(backup.read_bytes())
    content[4096 * 6 : 4096 * 9] = b"\xff" * 4096 * 3
    backup.write_bytes(content)
    before = state.read_bytes()
    with pytest.raises(BackupError, match=r"copy\.sqlite"):
        restore_backup(backup, state, on_progress=silently)
    assert state.read_bytes() == before
    assert not state.with_name("state.sqlite.before-restore").exists()


async def test_a_state_that_is_open_is_not_replaced_and_one_that_is_replaced_is_not_opened(
    log: SqliteEventLog, state: Path, tmp_path: Path
):
    second = await SqliteEventLog.open(state)
    await log.append("registry", [Record("kind", b"1")])
    backup = save_backup(state, tmp_path / "copy.sqlite", replace=False, on_progress=silently).path
    await log.close()
    with pytest.raises(LogUnavailable, match="stop it first"):
        restore_backup(backup, state, on_progress=silently)
    await second.close()
    with exclusive_lock(state), pytest.raises(LogUnavailable, match="being restored"):
        await SqliteEventLog.open(state)
    restore_backup(backup, state, on_progress=silently)


async def test_a_backup_of_the_first_version_is_restored_in_the_current_one(state: Path, tmp_path: Path):
    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(FIRST_VERSION)
    facts, kept = restore_backup(old, state, on_progress=silently)
    assert (facts.schema_version, facts.revisions, kept) == (2, {"plans": 2, "registry": 1}, None)
    assert await payloads(state, "plans") == [b"one", b"two"]
