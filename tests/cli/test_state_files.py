"""`mec backup` and `mec restore`: what they print, and what stops them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mec_apps.cli.main import cli
from mec_platform.registry.errors import BackupError
from mec_platform.registry.event_log import Record
from mec_platform.registry.sqlite.event_log import SqliteEventLog


@pytest.fixture
def state(tmp_path: Path) -> Path:
    async def write() -> None:
        log = await SqliteEventLog.open(path)
        await log.append("plans", [Record("plan.committed", b"{}")])
        await log.close()

    path = tmp_path / "state.sqlite"
    asyncio.run(write())
    return path


def mec(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_a_backup_says_what_it_holds_and_restoring_it_what_to_do_then(state: Path, tmp_path: Path):
    copy = tmp_path / "copy.sqlite"
    saved = mec("backup", "--state", state, copy)
    assert saved.exit_code == 0
    assert f"copied to {copy}" in saved.output
    assert "plans to revision 1" in saved.output
    restored = mec("restore", copy, "--state", state)
    assert f"kept as {state}.before-restore" in restored.output
    assert "Restart the nodes" in restored.output


def test_both_print_json(state: Path, tmp_path: Path):
    copy = tmp_path / "copy.sqlite"
    saved = json.loads(mec("backup", "--state", state, copy, "--json").stdout)
    assert saved["path"] == str(copy)
    assert saved["revisions"] == {"plans": 1}
    restored = json.loads(mec("restore", copy, "--state", tmp_path / "new.sqlite", "--json").stdout)
    assert restored["kept"] is None
    assert "epoch" in restored["note"]


def test_what_stops_them_is_an_error_that_says_what_to_do(state: Path, tmp_path: Path):
    refused = mec("backup", "--state", state, state)
    assert isinstance(refused.exception, BackupError)
    missing = mec("restore", tmp_path / "nothing.sqlite", "--state", state)
    assert "no backup" in str(missing.exception)
