"""A tiny scenario on real processes in namespaces, measured and simulated. Needs root, as the testbed does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mec_platform.scenario.scenario import read_scenario
from tests.testbed.test_ground import left_over, needs_root

SCENARIO = """
title = "two small nodes"
duration_s = 8

[[node]]
name = "edge-1"
memory_mib = 120

[[node]]
name = "edge-2"
memory_mib = 120
block_us = 400

[[link]]
source = "*"
target = "*"
mbit_per_s = 50

[[event]]
at_s = 4
source = "edge-1"
target = "edge-2"
mbit_per_s = 20

[[deployment]]
name = "smollm2"

[deployment.demand]
per_s = 1.0
prompt_tokens = 60
answer_tokens = 20
"""


@needs_root
@pytest.mark.slow
@pytest.mark.thorough
def test_a_scenario_is_played_and_simulated_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SCENARIO)
    files = ["--figure", "site.png", "--calibrated", "calibrated.toml"]
    done = subprocess.Popen(
        [sys.executable, "-m", "mec_apps.cli", "testbed", "run", "--scenario", "site.toml", "--json", *files],
        cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": ":".join(sys.path), "HOME": str(Path.home())},
        stdout=subprocess.PIPE,
        text=True,
    )
    printed, _ = done.communicate(timeout=540)
    assert done.returncode == 0
    result = json.loads(printed)
    for policy in ("adaptive", "unchanged"):
        here, there = (result[side]["policies"][policy] for side in ("measured", "simulated"))
        assert here.keys() == there.keys()
        assert here["requests"] == there["requests"] > 0
        assert here["unfinished"] == 0
        assert (
            result["agreement"][policy]["first_plan"]["measured"]
            == result["agreement"][policy]["first_plan"]["simulated"]
        )
    assert (tmp_path / "site.png").stat().st_size > 10_000
    assert {node.name for node in read_scenario(tmp_path / "calibrated.toml").nodes} == {"edge-1", "edge-2"}
    assert left_over(done.pid) == []
