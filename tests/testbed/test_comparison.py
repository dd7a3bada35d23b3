"""A measured run beside a simulated one: the same records, the measured numbers in the scenario, and how far they agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from mec_apps.cli.testbed.agreement import agreement, tokens_by_second, tokens_per_s
from mec_apps.cli.testbed.calibration import MACHINE, Measures, calibrated
from mec_apps.cli.testbed.comparison import print_report, report, simulate_again, write_calibrated
from mec_apps.cli.testbed.demand import Arrivals, Asked, Streams
from mec_apps.cli.testbed.records import mean_answer_tokens, record_of, requests_of_run
from mec_apps.cli.testbed.run import Measured, Runs
from mec_platform.domain.layers import LayerRange
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2
from mec_platform.scenario.scenario import (
    DemandSpec,
    DeploymentSpec,
    EventSpec,
    LinkSpec,
    NodeSpec,
    Scenario,
    read_scenario,
)
from mec_platform.simulation.compare import Comparison
from mec_platform.simulation.loading import LoadedWorld
from mec_platform.simulation.requests import Request, Slo
from mec_platform.simulation.summary import summarise
from mec_platform.simulation.world import World

FIRST = SplitPlan(1, 0, "chat", (Stage("edge-1", LayerRange(0, 20)), Stage("edge-2", LayerRange(20, 30))))
SECOND = SplitPlan(2, 1, "chat", (Stage("edge-2", LayerRange(0, 30)),))


def stage_messages(plan: SplitPlan) -> list[types_pb2.Stage]:
    return [
        types_pb2.Stage(node=s.node, layers=types_pb2.LayerRange(start=s.layers.start, stop=s.layers.stop))
        for s in plan.stages
    ]


def measured_run(adaptive: bool = True) -> Measured:
    """Two answers of a token each 100 ms, the second one cut off, and a change of plan at 2 s."""
    run = Measured(adaptive, 4.0)
    run.requests = [
        Asked(0.0, 50, 20, [0.5 + 0.1 * n for n in range(20)], done_s=2.4),
        Asked(1.0, 50, 20, [1.5, 1.6], failure="the gateway went away"),
    ]
    run.plans = [(0.0, FIRST), (2.0, SECOND)]
    run.busy_s = {"edge-1": 1.0, "edge-2": 2.0}
    message = types_pb2.SplitPlan(epoch=2, parent_epoch=1, model="chat", stages=stage_messages(SECOND))
    why = "link edge-1 -> edge-2 fell"
    run.decisions = [(1.5, control_plane_pb2.Decision(kind="migrate", reason=why, trigger="link_degraded"))]
    run.reconfigurations = [
        (
            2.0,
            control_plane_pb2.Reconfiguration(
                plan=message, kind="migrate", reason=why, outcome="committed", prepare_ms=300, switch_ms=100
            ),
        )
    ]
    return run


def measures() -> Measures:
    """A lone session on two nodes of one machine with two cores."""
    model = types_pb2.ModelShape(name="chat", blocks=30, hidden_bytes_per_row=2304, block_bytes=2 << 20)
    members = [
        control_plane_pb2.MemberReport(
            name=name,
            role=control_plane_pb2.MEMBER_ROLE_NODE,
            model=model,
            trusted=True,
            memory_bytes=200 << 20,
            block_time_us=block_us,
            head_time_us=2000,
            prefill_block_time_us_per_row=80,
            links=[types_pb2.LinkEstimate(peer="gateway", bytes_per_s=1e7, round_trip_ms=1.5)],
        )
        for name, block_us in (("edge-1", 250.0), ("edge-2", 500.0))
    ]
    core_s = {"edge-1": 0.006, "edge-2": 0.009, "gateway": 0.001, "": 0.0005}
    return Measures(control_plane_pb2.Snapshot(members=members), FIRST, core_s, cores=2, token_s=0.015)


def played() -> LoadedWorld:
    fades = EventSpec(2.0, source="edge-1", target="edge-2", mbit_per_s=1)
    scenario = Scenario(
        (NodeSpec("edge-1"), NodeSpec("edge-2")),
        (DeploymentSpec("chat", demand=DemandSpec(per_s=1.0, prompt_tokens=50, answer_tokens=20)),),
        links=(LinkSpec("edge-1", "edge-2", round_trip_ms=40),),
        events=(fades,),
        title="a fading link",
        duration_s=4.0,
    )
    return LoadedWorld(World(scenario, {}), {})


def test_a_measured_run_is_told_in_the_terms_of_a_simulated_one():
    record = record_of(measured_run(), "chat")
    comparison = Comparison.of(played().world, {})
    of_simulated = summarise(comparison.run("adaptive"), {"chat": Slo()})
    of_measured = summarise(record, {"chat": Slo()})
    assert of_measured.keys() == of_simulated.keys()
    assert of_measured["deployments"]["chat"].keys() == of_simulated["deployments"]["chat"].keys()
    assert of_measured["tpot_ms"]["mean"] == pytest.approx(100)
    assert of_measured["requests"] == 2
    assert of_measured["unfinished"] == 1
    assert of_measured["utilisation"] == {"edge-1": 0.25, "edge-2": 0.5}
    (change,) = of_measured["deployments"]["chat"]["changes"]
    assert change["at_s"] == pytest.approx(1.6)
    assert change["trigger"] == "link_degraded"
    assert change["plan"] == "edge-2 [0, 30)"


def test_a_simulation_is_asked_what_was_asked_and_as_long_as_it_turned_out():
    run = measured_run()
    assert requests_of_run(run) == (Request(0, 0.0, "gateway", 50, 20), Request(1, 1.0, "gateway", 50, 20))
    assert mean_answer_tokens(run) == 20


def test_the_calibrated_scenario_has_the_measured_numbers_and_the_same_story():
    scenario = calibrated(played().world, measures(), DemandSpec(streams=2), threads=1)
    first, second = scenario.nodes
    assert (first.block_us, first.memory_mib, first.machine) == (250.0, 200.0, MACHINE)
    assert first.frame_us == pytest.approx(6000 - 20 * 250)
    assert second.frame_us == pytest.approx(9000 - 10 * 500 - 2000)
    assert scenario.gateways[0].frame_us == pytest.approx(1500)
    assert scenario.machines[0].cores == 2
    assert {link.round_trip_ms for link in scenario.links} == {1.5}
    assert scenario.events == played().world.scenario.events
    # What the file leaves out nothing limits on the testbed either.
    world = World(scenario, {})
    assert world.link("edge-1", "edge-2", 0.0).bytes_per_s == pytest.approx(100e6 / 8)  # type: ignore[union-attr]
    assert world.link("gateway", "edge-1", 0.0).bytes_per_s == pytest.approx(10e9 / 8)  # type: ignore[union-attr]


def test_a_node_that_has_not_reported_cannot_be_calibrated():
    more = World(Scenario((NodeSpec("edge-1"), NodeSpec("edge-9"))), {})
    with pytest.raises(ValueError, match="edge-9"):
        calibrated(more, measures(), DemandSpec(), threads=1)


@pytest.mark.parametrize("demand", [Arrivals((), 8), Streams(2, 50, 20)])
def test_both_sides_are_reported_alike_and_compared(
    demand: Arrivals | Streams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = Runs([measured_run(), measured_run(adaptive=False)], [measures(), measures()])
    compared = simulate_again(played(), runs, demand, threads=1)
    result = report(compared, ["a note"])
    for side in ("measured", "simulated"):
        assert result[side].keys() == {"scenario", "seed", "duration_s", "room", "policies", "criteria"}
        assert list(result[side]["policies"]) == ["adaptive", "unchanged"]
    first = " -> ".join(f"{stage.node} {stage.layers}" for stage in FIRST.stages)
    assert result["agreement"]["adaptive"]["first_plan"] == {"measured": first, "simulated": first}
    assert result["agreement"]["unchanged"]["plan_changes_s"]["simulated"] == []
    print_report(result)
    printed = capsys.readouterr().out
    for words in ("measured on the testbed", "SIMULATED", "OFF BY", "not carried out: a note", "SLO KEPT"):
        assert words in printed
    write_calibrated(compared, tmp_path / "calibrated.toml")
    again = read_scenario(tmp_path / "calibrated.toml")
    assert again.nodes == compared.scenario.nodes
    assert again.deployments == compared.scenario.deployments


def test_deviations_are_those_of_the_simulation_from_what_was_measured():
    record = record_of(measured_run(), "chat")
    assert sum(tokens_by_second(record)) == pytest.approx(22)
    assert tokens_per_s(record) == pytest.approx(22 / 4)
    same = agreement(record, record)
    for name in ("tokens_per_s", "time_per_token_ms", "first_token_ms", "answers"):
        assert same[name]["deviation_percent"] == 0
    assert same["seconds"]["median_deviation_percent"] == 0
    assert same["plan_changes_s"]["measured"] == [2.0]
