"""Scenarios with the decisions that they lead to, word for word: a change of any of them is seen, and judged by a person.

Where a change is meant: `MEC_UPDATE_GOLDEN=1 pytest tests/simulation/test_golden.py`, and look at what git shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mec_platform.scenario.scenario import read_scenario
from mec_platform.simulation.compare import Comparison, slo_of
from mec_platform.simulation.loading import Traces, load_world
from mec_platform.simulation.record import RunRecord
from mec_platform.simulation.summary import summarise
from tests.simulation import synthetic_traces

HERE = Path(__file__).parent
SCENARIOS = sorted(path.stem for path in (HERE / "scenarios").glob("*.toml"))
RADIO = {"slow_fade": synthetic_traces.slow_fade, "handover": synthetic_traces.handover}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunRecord, Mapping[str, Any]]]:
    """Every scenario with the adaptive policy: its record and its figures."""
    folder = tmp_path_factory.mktemp("traces")
    return {name: _run(name, folder) for name in SCENARIOS}


@pytest.mark.parametrize("name", SCENARIOS)
def test_leads_to_the_decisions_that_were_agreed_on(name: str, runs: dict[str, tuple[RunRecord, Mapping[str, Any]]]):
    told, golden = _tell(*runs[name]), HERE / "golden" / f"{name}.txt"
    if os.environ.get("MEC_UPDATE_GOLDEN"):
        golden.write_text(told)
    assert told == golden.read_text()


def test_no_plan_breaks_trust_in_any_scenario(runs: dict[str, tuple[RunRecord, Mapping[str, Any]]]):
    broken = {name: summary["trust_violations"] for name, (_, summary) in runs.items() if summary["trust_violations"]}
    assert broken == {}


def test_nothing_is_done_where_nothing_happens_and_where_all_fall_silent(
    runs: dict[str, tuple[RunRecord, Mapping[str, Any]]],
):
    for name in ("steady", "mass_silence"):
        assert runs[name][1]["reconfigurations"] == 0, name


def test_a_lost_node_costs_its_detection_and_no_request(runs: dict[str, tuple[RunRecord, Mapping[str, Any]]]):
    record, summary = runs["node_loss"]
    (change,) = [each for each in record.deployments[0].reconfigurations if each.trigger == "node_lost"]
    assert 15.0 < change.decided_s <= 20.0
    assert change.ended_s - change.decided_s < 2.0
    assert summary["unfinished"] == 0


def test_a_node_that_is_not_trusted_any_more_is_left_at_once(runs: dict[str, tuple[RunRecord, Mapping[str, Any]]]):
    _, summary = runs["trust_revoked"]
    assert 0 < summary["exposed_s"] < 3.0


def test_a_flapping_link_does_not_make_plans_flap(runs: dict[str, tuple[RunRecord, Mapping[str, Any]]]):
    assert runs["flapping_link"][1]["reconfigurations"] <= 3


def _run(name: str, folder: Path) -> tuple[RunRecord, Mapping[str, Any]]:
    scenario = read_scenario(HERE / "scenarios" / f"{name}.toml")
    traces = Traces()
    if name in RADIO:
        traces = Traces(radio=synthetic_traces.write_trace(folder / f"{name}.txt", scenario.duration_s, RADIO[name]))
    loaded = load_world(scenario, traces, scenario.duration_s)
    comparison = Comparison.of(loaded.world, loaded.arrivals)
    record = comparison.run("adaptive")
    return record, summarise(record, {each: slo_of(settings) for each, settings in comparison.settings.items()})


def _tell(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """A run in words and rounded figures."""
    lines = []
    for deployment in record.deployments:
        figures = summary["deployments"][deployment.name]
        lines.append(f"{deployment.name}:")
        lines += [f"  {each.at_s:5.1f} s  {each.kind}: {each.reason}" for each in deployment.decisions]
        for change in deployment.reconfigurations:
            plan = " -> ".join(f"{stage.node} {stage.layers}" for stage in change.stages)
            lines.append(
                f"  {change.decided_s:5.1f} s  {change.outcome} after {change.ended_s - change.decided_s:.2f} s, "
                f"pause {change.pause_s:.2f} s: {plan}"
            )
        lines.append(
            f"  {figures['requests']} requests, objectives kept by {figures['slo_attainment']:.0%}; time per token "
            f"{figures['tpot_ms']['mean']:.1f} ms (p99 {figures['tpot_ms']['p99']:.1f}), first token "
            f"{figures['ttft_ms']['mean']:.0f} ms; {figures['moved_bytes'] / 1e6:.2f} MB of KV moved"
        )
    return "\n".join(lines) + "\n"
