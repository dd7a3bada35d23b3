"""`mec store migrate` and `mec backup` between files and etcd: everything arrives, and what must not be touched is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mec_apps.cli.main import cli
from mec_platform.domain.errors import MendableError
from mec_platform.registry.etcd.event_log import EtcdEventLog
from mec_platform.registry.etcd.settings import EtcdSettings
from mec_platform.registry.event_log import EventLog, LogSnapshot, Record
from mec_platform.registry.sqlite.event_log import SqliteEventLog
from mec_platform.registry.store import open_store
from tests.registry.marks import needs_etcd

pytestmark = needs_etcd


def mec(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def failure(result: Result) -> str:
    """What `main` prints of it."""
    assert isinstance(result.exception, MendableError), result.output
    return str(result.exception)


async def fill(opening: Coroutine[Any, Any, EventLog]) -> None:
    """Streams with a snapshot in the middle of a batch, with none, with nothing behind it, and with large records."""
    log = await opening
    for start in (0, 300):
        await log.append(
            "registry", [Record(f"kind-{n}", b"%d" % n, f"s-{n}", "operator", n) for n in range(start, start + 300)]
        )
    await log.compact("registry", LogSnapshot(450, b"the first 450" * 200_000))
    await log.append("plans", [Record("plan.committed", b"{}")])
    await log.append("decisions/odd name", [Record("decision", bytes(700_000))] * 4)
    await log.append("summed up", [Record("a", b""), Record("b", b"")])
    await log.compact("summed up", LogSnapshot(2, b""))
    await log.close()


async def everything(opening: Coroutine[Any, Any, EventLog]) -> list[object]:
    log = await opening
    found: list[object] = []
    for stream in ("registry", "plans", "decisions/odd name", "summed up"):
        snapshot = await log.read_snapshot(stream)
        after = 0 if snapshot is None else snapshot.revision
        found += [snapshot, await log.read(stream, after), await log.history(stream, limit=1000)]
    await log.close()
    return found


def test_a_file_goes_into_etcd_and_back_with_everything_in_it(tmp_path: Path, etcd_settings: EtcdSettings):
    first, last, address = tmp_path / "first.sqlite", tmp_path / "last.sqlite", str(etcd_settings)
    asyncio.run(fill(SqliteEventLog.open(first)))
    there = mec("store", "migrate", first, address, "--json")
    assert there.exit_code == 0, there.output
    assert {each["stream"]: each["revision"] for each in json.loads(there.stdout)["streams"]} == {
        "registry": 600,
        "plans": 1,
        "decisions/odd name": 4,
        "summed up": 2,
    }
    wanted = asyncio.run(everything(SqliteEventLog.open(first)))
    assert asyncio.run(everything(EtcdEventLog.open(etcd_settings))) == wanted
    back = mec("store", "migrate", address, last)
    assert back.exit_code == 0, back.output
    assert "verified; start the platform with --state" in back.output
    assert asyncio.run(everything(SqliteEventLog.open(last))) == wanted


def test_a_log_that_was_written_in_etcd_goes_into_a_file_and_revisions_go_on(
    tmp_path: Path, etcd_settings: EtcdSettings
):
    path = tmp_path / "state.sqlite"
    asyncio.run(fill(EtcdEventLog.open(etcd_settings)))
    assert mec("store", "migrate", etcd_settings, path).exit_code == 0
    assert asyncio.run(everything(SqliteEventLog.open(path))) == asyncio.run(
        everything(EtcdEventLog.open(etcd_settings))
    )

    async def append() -> int:
        log = await SqliteEventLog.open(path)
        revision = await log.append("summed up", [Record("c", b"")], expected_revision=2)
        await log.close()
        return revision

    assert asyncio.run(append()) == 3


def test_what_is_not_empty_or_in_use_is_left_alone(tmp_path: Path, etcd_settings: EtcdSettings):
    path, other = tmp_path / "state.sqlite", tmp_path / "other.sqlite"
    elsewhere = replace(etcd_settings, prefix=f"{etcd_settings.prefix}/elsewhere")
    for opening in (SqliteEventLog.open(path), SqliteEventLog.open(other), EtcdEventLog.open(etcd_settings)):
        asyncio.run(fill(opening))
    assert "is not empty" in failure(mec("store", "migrate", path, etcd_settings))
    assert "holds a log already" in failure(mec("store", "migrate", etcd_settings, other))
    assert "there is no" in failure(mec("store", "migrate", tmp_path / "missing", elsewhere))
    assert "holds no log" in failure(mec("store", "migrate", elsewhere, tmp_path / "new.sqlite"))
    assert not (tmp_path / "missing").exists()
    assert "are the same" in failure(mec("store", "migrate", path, path))

    async def use() -> tuple[str, str]:
        log = await SqliteEventLog.open(path)
        store = await open_store(etcd_settings, "a replica")
        await store.leadership.start()
        messages = [
            failure(await asyncio.to_thread(mec, "store", "migrate", source, target))
            for source, target in ((path, elsewhere), (etcd_settings, tmp_path / "new.sqlite"))
        ]
        await store.leadership.stop()
        await store.log.close()
        await log.close()
        return messages[0], messages[1]

    file, prefix = asyncio.run(use())
    assert "a platform has" in file
    assert "a replica runs on" in prefix
    assert mec("store", "migrate", path, elsewhere).exit_code == 0


def test_what_is_no_log_is_neither_read_nor_made_one(tmp_path: Path, etcd_settings: EtcdSettings):
    prose = tmp_path / "prose.txt"
    prose.write_text("this is prose, not a database, and it is long enough to be looked at" * 10)
    assert "no event log" in failure(mec("store", "migrate", prose, etcd_settings))
    asyncio.run(fill(EtcdEventLog.open(etcd_settings)))
    assert "no event log" in failure(mec("store", "migrate", etcd_settings, prose))
    assert prose.read_text().startswith("this is prose")


def test_a_state_in_etcd_is_backed_up_while_it_is_used(tmp_path: Path, etcd_settings: EtcdSettings):
    copy = tmp_path / "copy.sqlite"

    async def use() -> Result:
        await fill(EtcdEventLog.open(etcd_settings))
        store = await open_store(etcd_settings, "a replica")
        await store.leadership.start()
        saved = await asyncio.to_thread(mec, "backup", "--state", etcd_settings, copy)
        await store.leadership.stop()
        await store.log.close()
        return saved

    saved = asyncio.run(use())
    assert saved.exit_code == 0, saved.output
    assert "registry to revision 600" in saved.output
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert asyncio.run(everything(SqliteEventLog.open(copy))) == asyncio.run(
        everything(EtcdEventLog.open(etcd_settings))
    )
    assert "say --force" in failure(mec("backup", "--state", etcd_settings, copy))


def test_commands_for_files_say_so_of_etcd(tmp_path: Path):
    refused = mec("restore", "--state", "etcd://127.0.0.1/mec", tmp_path / "copy.sqlite")
    assert refused.exit_code == 2
    assert "mec store migrate" in refused.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--etcd-cert", "a"], "belong together"),
        (["--etcd-cert", "a", "--etcd-key", "b"], "needs --etcd-ca"),
        (["--etcd-user", "me"], "--etcd-password-file"),
    ],
)
def test_ways_into_etcd_have_to_be_complete(options: list[str], message: str):
    refused = mec("store", "migrate", "etcd://a", "etcd://b", *options)
    assert refused.exit_code == 2
    assert message in refused.output
