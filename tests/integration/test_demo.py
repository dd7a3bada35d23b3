"""The main job as its user starts it: one command, real processes, an answer that nothing stops."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


async def test_the_demo_ends_well_and_says_so_in_json(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mec_apps.cli", "demo", "--json", str(result)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 170)
    text = output.decode()
    assert process.returncode == 0, text
    assert "Traceback" not in text
    told = json.loads(result.read_text(encoding="utf-8"))
    assert told["identical"] is True
    assert told["tokens_lost"] == 0
    assert told["tokens"] >= 300
    assert told["tokens_per_s"] > 0
    changes = told["reconfigurations"]
    assert len(changes) >= 2
    assert any("is lost" in change["reason"] for change in changes)
    assert all(change["kind"] in ("migrate", "re_split") for change in changes)
    assert all(change["pause_ms"] > 0 for change in changes)
    assert any("EMULATED" in line and "degrades" in line for line in text.splitlines())


async def test_a_demo_that_could_not_write_its_result_does_not_begin(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mec_apps.cli", "demo", "--json", str(tmp_path / "missing" / "result.json")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert output.decode().startswith("error: ")
    assert "no folder" in output.decode()
