"""A thousand members that report every second: one batch a second, and snapshots made of the objects of the last one."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from mec_platform.control_plane.monitoring.estimates import (
    LinkReading,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    Refusal,
    apply_report,
    apply_reports,
    snapshot,
)

SETTINGS = MonitoringSettings()
COUNT = 1000
LINKS = 3
Second = Callable[[int], list[MemberReported]]


@pytest.fixture
def second(world: SimpleNamespace) -> Second:
    """The reports of one second of an unchanged world."""
    names = [f"node-{number:04d}" for number in range(COUNT)]
    model = world.model()

    def reports(at_s: int) -> list[MemberReported]:
        return [
            MemberReported(
                at_s + index / COUNT, "node", name, f"{name}:1", "1", True, world.hardware, model, 10**9,
                1e-3, 2e-3, 1e-4, 3, 0.0, 0, busy_share=0.3,
                links=tuple(LinkReading(names[(index + step) % COUNT], 1e7, 1e-3) for step in range(1, LINKS + 1)),
            )
            for index, name in enumerate(names)
        ]  # fmt: skip

    return reports


def calls_of(work: Callable[[], object]) -> int:
    """Calls of functions, Python's own included: what work costs, without a clock."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_a_batch_is_what_its_reports_are_one_by_one(second: Second) -> None:
    events = [event for at_s in range(3) for event in second(at_s)[:20]]
    batch, refused = apply_reports(MonitoringState(0.0), events, SETTINGS)
    one_by_one: MonitoringState | Refusal = MonitoringState(0.0)
    for event in events:
        assert isinstance(one_by_one, MonitoringState)
        one_by_one = apply_report(one_by_one, event, SETTINGS)
    assert refused == []
    assert batch == one_by_one


def test_refused_reports_of_a_batch_are_told_and_the_others_are_taken(second: Second) -> None:
    first, other = second(0)[:2]
    impostor = MemberReported(**{**{f: getattr(first, f) for f in first.__slots__}, "incarnation": "2"})
    state, refused = apply_reports(MonitoringState(0.0), [first, impostor, other], SETTINGS)
    assert [(event, refusal.reason[:17]) for event, refusal in refused] == [(impostor, "node-0000 is take")]
    assert sorted(state.members) == ["node-0000", "node-0001"]


def test_a_thousand_reports_cost_a_bounded_number_of_steps_each_however_many_members_there_are(second: Second) -> None:
    state, _ = apply_reports(MonitoringState(0.0), [e for at_s in range(8) for e in second(at_s)], SETTINGS)
    events = second(8)
    many = calls_of(lambda: apply_reports(state, events, SETTINGS)) / COUNT
    few = calls_of(lambda: apply_reports(state, events[:100], SETTINGS)) / 100
    assert many < 150  # its own five measurements and those of three links: eleven series, a node, three links
    assert few == pytest.approx(many, rel=0.2)


def test_snapshots_of_an_unchanged_world_are_the_same_objects(second: Second) -> None:
    state = MonitoringState(0.0)
    for at_s in range(10):  # until every window is full and trust does not grow any more
        state, _ = apply_reports(state, second(at_s), SETTINGS)
    before = snapshot(state, 10.0, None, SETTINGS)
    state, _ = apply_reports(state, second(10), SETTINGS)
    after = snapshot(state, 11.0, None, SETTINGS)
    assert len(after.links) == COUNT * LINKS
    assert after.nodes is before.nodes
    assert after.links is before.links
    again = calls_of(lambda: snapshot(state, 11.5, None, SETTINGS))
    assert again < 20 * COUNT


def test_what_changes_is_new_and_nothing_else(second: Second) -> None:
    state, _ = apply_reports(MonitoringState(0.0), [e for at_s in range(10) for e in second(at_s)], SETTINGS)
    before = snapshot(state, 10.0, None, SETTINGS)
    changed = second(10)
    changed[7] = MemberReported(**{**{f: getattr(changed[7], f) for f in changed[7].__slots__}, "sessions": 9})
    state, _ = apply_reports(state, changed, SETTINGS)
    after = snapshot(state, 11.0, None, SETTINGS)
    assert [index for index, (a, b) in enumerate(zip(before.nodes, after.nodes, strict=True)) if a is not b] == [7]
    assert after.nodes[7].sessions == 9
    assert after.links is before.links


def test_a_world_without_memory_of_snapshots_looks_the_same(second: Second) -> None:
    """The memo only saves work: a state that has never been looked at gives equal snapshots."""
    state, _ = apply_reports(MonitoringState(0.0), [e for at_s in range(4) for e in second(at_s)[:30]], SETTINGS)
    for now_s in (4.0, 5.5, 6.2, 6.9, 9.0, 20.0):
        fresh, _ = apply_reports(MonitoringState(0.0), [e for at_s in range(4) for e in second(at_s)[:30]], SETTINGS)
        assert snapshot(state, now_s, None, SETTINGS) == snapshot(fresh, now_s, None, SETTINGS)
