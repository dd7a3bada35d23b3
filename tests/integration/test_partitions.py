"""A network that falls apart in silence, for some members and not for others: answers go on, and nobody answers for the past.

Real processes in network namespaces, between which packets go to nobody: `partitioned_edge` runs there, and says what came of
it. What is cut off is left where the plan needs it; when the network is whole again, it has let go of its old epoch and of
everybody's KV, and is used again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from mec_apps.cli.testbed.quotas import group_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("tc") is None or not group_folder("").is_dir(),
        reason="needs root, iproute2 and the cpu controller of control groups",
    ),
]

LEFT = {
    "node and platform": "edge-2 has been silent",
    "two nodes of the plan": "link broken",
    "gateway and first node": "",
    "node and all others": "",
}
"""Cuts that a plan is left for, and what the reason says; the gateway does without the platform for as long as it must."""

LONGEST_S = 300.0


@pytest.mark.thorough
@pytest.mark.parametrize("cut", [*LEFT, "gateway and platform"])
async def test_an_answer_goes_on_through_a_cut_and_who_was_cut_off_comes_back_fenced(cut: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.partitioned_edge", cut),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    async with asyncio.timeout(LONGEST_S):
        printed, _ = await process.communicate()
    outcome = json.loads(printed)
    assert (outcome["failure"], outcome["same_tokens"]) == ("", True)
    assert outcome["left"] == (cut in LEFT)
    assert LEFT.get(cut, "") in " ".join(outcome["reasons"])
    assert outcome["fenced"]
    assert outcome["used_again"]
