"""A policy file in force: a new one is taken up by running deployments, a bad one changes nothing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from mec_platform.control_plane import policy_reload
from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.policy_file import Policies
from mec_platform.control_plane.policy_reload import PolicyReload


def test_a_bad_file_is_refused_and_the_old_policies_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policies.toml"
    taken: list[Policies] = []
    path.write_text("[default]\npriority = 1\n")
    reload = PolicyReload(path, ControlSettings(), taken.append)
    reload.reload()
    path.write_text("[default]\npriority = 'high'\n")
    with caplog.at_level(logging.ERROR):
        reload.reload()
    assert [policies.default.priority for policies in taken] == [1]
    assert "the policies stay as they are" in caplog.text
    assert "priority is 'high'; write a whole number" in caplog.text


async def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_reload, "LOOK_S", 0.01)
    path, seen = tmp_path / "policies.toml", asyncio.Event()
    path.write_text("[default]\npriority = 1\n")
    found: list[int] = []

    def take(policies: Policies) -> None:
        found.append(policies.default.priority)
        seen.set()

    reload = PolicyReload(path, ControlSettings(), take)
    reload.start()
    replacement = tmp_path / "new.toml"
    replacement.write_text("[default]\npriority = 22\n")
    replacement.rename(path)
    await asyncio.wait_for(seen.wait(), 20)
    await reload.stop()
    assert found == [22]
