"""`mec plan --scenario`: a plan without a platform, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mec_apps.cli.plan import plan

WORLD = """
[[node]]
name = "street"
count = 2
site = "street"
memory_mib = 150
block_us = 900
[[node]]
name = "core"
site = "core"
block_us = 100
trusted = false
[[gateway]]
name = "gateway"
site = "street"
[[link]]
source = "street"
target = "core"
round_trip_ms = 4
[[deployment]]
name = "small"
[[deployment]]
name = "deep"
model = { blocks = 60 }
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    path = tmp_path / "world.toml"
    path.write_text(WORLD, encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(plan, [str(argument) for argument in arguments])


def test_prints_the_plan_its_cost_and_how_good_it_is(world: Path) -> None:
    result = run("--scenario", world, "--deployment", "small", "--explain")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "small: street-1 [0, 2) -> core [2, 29) -> street-2 [29, 30)"
    assert lines[1].endswith("proven to be the best plan")
    assert any("all on one node: core [0, 30) would cost" in line and "is not trusted" in line for line in lines)


def test_prints_json_with_every_term(world: Path) -> None:
    facts = json.loads(run("--scenario", world, "--deployment", "small", "--json").output)
    assert [stage["node"] for stage in facts["stages"]] == ["street-1", "core", "street-2"]
    assert facts["gap"] == 0
    assert facts["cost"]["total_ms"] == pytest.approx(
        facts["cost"]["latency_ms"] + 0.5 * facts["cost"]["imbalance_ms"] + 4.0 * facts["cost"]["exposure"]
    )
    assert "explanation" not in facts


def test_an_objective_and_excluded_nodes_change_the_plan(world: Path) -> None:
    chosen = {
        objective: json.loads(
            run("--scenario", world, "--deployment", "small", "--objective", objective, "--json").output
        )["cost"]
        for objective in ("latency", "throughput")
    }
    assert chosen["latency"]["latency_ms"] <= chosen["throughput"]["latency_ms"]
    assert chosen["throughput"]["bottleneck_ms"] <= chosen["latency"]["bottleneck_ms"]
    without = json.loads(run("--scenario", world, "--deployment", "small", "--exclude", "core", "--json").output)
    assert {stage["node"] for stage in without["stages"]} == {"street-1", "street-2"}


def test_says_what_to_mend(world: Path) -> None:
    assert "choose one of the deployments with --deployment: small, deep" in str(run("--scenario", world).exception)
    assert "has no node called nobody" in str(
        run("--scenario", world, "--deployment", "small", "--exclude", "nobody").exception
    )
    assert "no plan: " in str(run("--scenario", world, "--deployment", "deep", "--exclude", "core").exception)
    assert "need --scenario" in run("--explain").output
