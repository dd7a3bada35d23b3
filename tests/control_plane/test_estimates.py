"""Monitoring: who is alive, and what measurements say once outliers are out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mec_platform.control_plane.monitoring.estimates import (
    LinkReading,
    MemberFailed,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    Refusal,
    apply_failure,
    apply_report,
    snapshot,
    why_gone,
)
from mec_platform.domain.cost_profile import CostProfile, RowCost

SETTINGS = MonitoringSettings()
EMPTY = MonitoringState(started_s=0.0)
Report = Callable[..., MemberReported]


@pytest.fixture(scope="session")
def report(world: SimpleNamespace) -> Report:
    def build(at_s: float, name: str = "edge-1", **changes: Any) -> MemberReported:
        values: dict[str, Any] = {
            "role": "node",
            "address": f"{name}:1",
            "incarnation": "first",
            "trusted": True,
            "hardware": world.hardware,
            "model": world.model(),
            "memory_bytes": 10,
            "block_time_s": 0.001,
            "head_time_s": 0.002,
            "prefill_block_time_s_per_row": 0.0001,
            "sessions": 0,
            "tokens_per_s": 0.0,
            "context_positions": 0,
        }
        return MemberReported(at_s=at_s, name=name, **(values | changes))

    return build


def take(state: MonitoringState, *events: MemberReported | MemberFailed) -> MonitoringState:
    for event in events:
        if isinstance(event, MemberFailed):
            state = apply_failure(state, event)
        else:
            taken = apply_report(state, event, SETTINGS)
            assert isinstance(taken, MonitoringState), taken
            state = taken
    return state


def alive(state: MonitoringState, now_s: float) -> list[str]:
    return [node.name for node in snapshot(state, now_s, None, SETTINGS).nodes]


def test_members_appear_with_their_measurements(report: Report, world: SimpleNamespace) -> None:
    gateway = report(1.0, "gw", role="gateway", model=None, sessions=2, context_positions=90, tokens_per_s=31.0)
    state = take(EMPTY, gateway, report(1.0, links=(("gw", 1e6, 0.01), ("nobody", 1e6, 0.01))))
    seen = snapshot(state, 2.0, None, SETTINGS)
    assert seen.now_s == 2.0
    assert seen.model == world.model()
    assert [node.name for node in seen.nodes] == ["edge-1"]
    assert [(g.name, g.sessions, g.context_positions, g.tokens_per_s) for g in seen.gateways] == [("gw", 2, 90, 31.0)]
    assert [(link.source, link.target, link.bytes_per_s) for link in seen.links] == [("edge-1", "gw", 1e6)]


def test_one_outlier_does_not_move_a_link_and_a_real_drop_shows_with_the_second_report(report: Report) -> None:
    state, seen = EMPTY, []
    for at_s, rate in enumerate([10e6, 10e6, 0.1e6, 10e6, 10e6, 1e6, 1e6]):
        state = take(state, report(at_s, "edge-2"), report(at_s, links=(("edge-2", rate, 0.01),)))
        link = snapshot(state, at_s, None, SETTINGS).link("edge-1", "edge-2")
        assert link is not None
        seen.append(link.bytes_per_s)
    assert seen == [10e6, 10e6, 10e6, 10e6, 10e6, 10e6, 1e6]


def test_directions_stay_apart_and_ages_are_those_of_their_samples(report: Report) -> None:
    there = report(0.0, links=(LinkReading("edge-2", 8e6, 0.01), LinkReading("edge-1", 1e6, 0.01)))
    back = report(0.0, "edge-2", links=(LinkReading("edge-1", 1e6, 0.02, age_s=5.0),))
    seen = snapshot(take(EMPTY, there, back), 0.0, None, SETTINGS)
    assert [(link.source, link.bytes_per_s, link.round_trip_s, link.age_s) for link in seen.links] == [
        ("edge-1", 8e6, 0.01, 0.0),
        ("edge-2", 1e6, 0.02, 4.0),
    ]
    assert seen.links[1].confidence < seen.links[0].confidence


def test_a_rate_and_a_round_trip_that_come_apart_make_a_link_together(report: Report) -> None:
    state = take(EMPTY, report(0.0, "edge-2"), report(0.0, links=(LinkReading("edge-2", 8e6, 0.0),)))
    assert snapshot(state, 0.0, None, SETTINGS).links == ()
    state = take(state, report(1.0, links=(LinkReading("edge-2", 0.0, 0.01),)))
    (link,) = snapshot(state, 2.5, None, SETTINGS).links
    assert (link.bytes_per_s, link.round_trip_s, link.age_s) == (8e6, 0.01, 2.0)  # the rate is the older half


def test_links_between_sites_are_the_medians_of_their_members(report: Report) -> None:
    rates = {"a1": 1e6, "a2": 9e6, "a3": 10e6}
    names = {"a1": "A", "a2": "A", "a3": "A", "b1": "B", "lone": ""}
    events = [
        report(1.0, name, site=site, links=(("b1", rates[name], 0.01), ("lone", 5e6, 0.01)) if name in rates else ())
        for name, site in names.items()
    ]
    state = take(EMPTY, *events)
    seen = snapshot(state, 1.0, None, SETTINGS)
    assert [(link.source, link.target, link.bytes_per_s) for link in seen.site_links] == [("A", "B", 9e6)]
    state = take(state, report(1.5, "lone", sessions=2))
    assert snapshot(state, 1.5, None, SETTINGS).site_links is seen.site_links


def test_values_that_were_not_measured_are_not_estimates(report: Report) -> None:
    state = take(EMPTY, report(0.0, block_time_s=0.0, links=(("edge-2", float("nan"), 0.0),)), report(0.0, "edge-2"))
    seen = snapshot(state, 0.0, None, SETTINGS)
    assert seen.links == ()
    assert seen.nodes[0].block_time_s == seen.nodes[1].block_time_s == 0.001
    lone = take(EMPTY, report(0.0, block_time_s=0.0))
    assert snapshot(lone, 0.0, None, SETTINGS).nodes[0].block_time_s == SETTINGS.default_block_time_s


def test_a_silent_member_is_gone_and_comes_back_with_its_next_report(report: Report, world: SimpleNamespace) -> None:
    plan = world.plan(1, ("edge-1", 0, 12))
    state = take(EMPTY, report(0.0))
    assert alive(state, 3.0) == ["edge-1"]
    assert alive(state, 3.1) == []
    assert snapshot(state, 3.1, plan, SETTINGS).lost_nodes == {"edge-1"}
    assert why_gone(state, "edge-1", 5.0) == "edge-1 has been silent for 5.0 s"
    assert alive(take(state, report(6.0)), 6.0) == ["edge-1"]


def test_a_failed_member_is_gone_at_once_and_heals_only_after_the_grace(report: Report) -> None:
    state = take(EMPTY, report(0.0), MemberFailed(0.5, "edge-1", "stream broke"))
    assert alive(state, 0.5) == []
    assert why_gone(state, "edge-1", 1.0) == "edge-1 is gone since 0.5 s: stream broke"
    in_flight = take(state, report(1.4))
    assert alive(in_flight, 1.4) == []
    assert alive(take(in_flight, report(1.6)), 1.6) == ["edge-1"]


def test_a_new_process_after_a_failure_is_taken_at_once_with_fresh_estimates(report: Report) -> None:
    state = take(EMPTY, report(0.0, block_time_s=0.009), MemberFailed(0.5, "edge-1", "killed"))
    state = take(state, report(0.6, incarnation="second", block_time_s=0.001))
    assert alive(state, 0.6) == ["edge-1"]
    assert snapshot(state, 0.6, None, SETTINGS).nodes[0].block_time_s == 0.001


@pytest.mark.parametrize(
    ("known", "held", "lost"),
    [
        (0, (), False),  # it has just started, or reports as older ones do: the reply tells it the epoch
        (3, (3, 4), False),  # prepared; the commit is on its way
        (4, (4,), False),
        (4, (4, 6), False),
        (4, (), True),
        (6, (6,), True),
    ],
)
def test_a_node_that_knows_the_epoch_and_holds_no_stage_of_it_is_there_and_lost_to_the_plan(
    report: Report, world: SimpleNamespace, known: int, held: tuple[int, ...], lost: bool
) -> None:
    plan = world.plan(4, ("edge-1", 0, 12))
    state = take(EMPTY, report(0.0, committed_epoch=known, stage_epochs=held))
    seen = snapshot(state, 0.0, plan, SETTINGS)
    assert [node.name for node in seen.nodes] == ["edge-1"]
    assert seen.lost_nodes == ({"edge-1"} if lost else frozenset())


def test_a_second_process_with_the_same_name_is_refused_while_the_first_is_alive(report: Report) -> None:
    state = take(EMPTY, report(0.0))
    refused = apply_report(state, report(1.0, incarnation="second"), SETTINGS)
    assert isinstance(refused, Refusal)
    assert "edge-1 is taken" in refused.reason
    assert alive(take(state, report(3.5, incarnation="second")), 3.5) == ["edge-1"]


def test_a_node_with_another_model_is_refused_while_others_serve_the_first(
    report: Report, world: SimpleNamespace
) -> None:
    state = take(EMPTY, report(0.0))
    refused = apply_report(state, report(0.5, "edge-2", model=world.model(name="other")), SETTINGS)
    assert isinstance(refused, Refusal)
    assert "edge-2 serves model other" in refused.reason
    alone = take(state, report(9.0, "edge-2", model=world.model(name="other")))
    assert snapshot(alone, 9.0, None, SETTINGS).model == world.model(name="other")


def test_a_leaving_member_is_gone_and_its_late_reports_do_not_bring_it_back(report: Report) -> None:
    state = take(EMPTY, report(0.0), report(1.0, leaving=True), report(1.2))
    assert alive(state, 1.2) == []
    assert why_gone(state, "edge-1", 2.0) == "edge-1 is gone since 1.0 s: left in order"


def test_a_report_of_failure_about_an_unknown_member_changes_nothing() -> None:
    assert apply_failure(EMPTY, MemberFailed(1.0, "nobody", "?")) == EMPTY


def test_after_a_restart_nodes_of_the_plan_have_time_to_report(report: Report, world: SimpleNamespace) -> None:
    plan = world.plan(4, ("edge-1", 0, 6), ("edge-2", 6, 12))
    state = take(EMPTY, report(1.0))
    assert snapshot(state, 2.0, plan, SETTINGS).lost_nodes == frozenset()
    assert why_gone(state, "edge-2", 2.0) == "edge-2 has not reported since the platform started"
    state = take(state, report(11.0))
    assert snapshot(state, 11.0, plan, SETTINGS).lost_nodes == {"edge-2"}


def test_peers_that_are_not_measured_any_more_are_forgotten_with_the_next_new_one(report: Report) -> None:
    state = take(EMPTY, report(0.0, links=(("old", 1e6, 0.01),)), report(700.0, links=(("new", 1e6, 0.01),)))
    assert list(state.members["edge-1"].links) == ["new"]


def test_names_that_come_and_go_do_not_pile_up_in_what_snapshots_remember(report: Report) -> None:
    state = EMPTY
    for at_s in range(0, 4000, 10):
        state = take(
            state, report(at_s, links=((f"job-{at_s}", 1e6, 0.01),)), report(at_s, f"job-{at_s}", block_time_s=0.0)
        )
        snapshot(state, at_s + 0.5, None, SETTINGS)
        snapshot(state, at_s + 2.5, None, SETTINGS)
    assert len(state.memo.nodes) + len(state.memo.fresh) <= 12
    assert len(state.memo.links) <= 12


def test_members_that_are_long_gone_are_forgotten(report: Report) -> None:
    state = take(EMPTY, report(0.0, "old"), report(4000.0))
    assert sorted(state.members) == ["edge-1"]


def test_a_profile_is_the_latest_reported_and_its_ratio_the_median_of_the_recent_ones(report: Report) -> None:
    cost = RowCost(1e-3, (1e-3,))
    profile = CostProfile("measured", (1,), cost, 0.0, 0.0, cost, 0.02)
    events = [
        report(float(at_s), profile=profile, profile_ratio=ratio)
        for at_s, ratio in enumerate((0.0, 1.1, 9.0, 1.2, float("nan")), start=1)
    ]
    node = snapshot(take(EMPTY, *events), 5.0, None, SETTINGS).node("edge-1")
    assert node is not None
    assert (node.profile, node.profile_ratio) == (profile, 1.2)
    fresh = snapshot(take(EMPTY, report(1.0, profile=profile)), 1.0, None, SETTINGS).node("edge-1")
    assert fresh is not None
    assert fresh.profile_ratio == 1.0
