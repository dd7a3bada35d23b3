"""When members fall silent together: what is believed, what is not, and when it is again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mec_platform.control_plane.monitoring.estimates import (
    MemberFailed,
    MemberReported,
    MonitoringSettings,
    MonitoringState,
    apply_failure,
    apply_reports,
    gone_members,
    snapshot,
)
from mec_platform.domain.capacity import Snapshot

SETTINGS = MonitoringSettings()


class Site:
    """Members that report every second, each at its own moment of the second, from 0 s on."""

    def __init__(self, world: SimpleNamespace, nodes: int) -> None:
        self.names = [*(f"n{number:02d}" for number in range(nodes)), "gateway"]
        self.plan = world.plan(1, *((name, index, index + 1) for index, name in enumerate(self.names[:nodes])))
        self._world = world
        self._now_s = 0.0
        self.state = MonitoringState(0.0)

    def report(self, name: str, at_s: float) -> MemberReported:
        return MemberReported(
            at_s, "gateway" if name == "gateway" else "node", name, f"{name}:1", "first", True, self._world.hardware,
            self._world.model(), 10, 0.001, 0.002, 0.0001, 0, 0.0, 0,
            links=tuple((peer, 1e6, 0.001) for peer in self.names if peer != name),
        )  # fmt: skip

    def run(self, until_s: float, silent: frozenset[str] = frozenset()) -> Snapshot:
        """Reports up to `until_s` of everybody but `silent`, and what is seen then."""
        step = 1.0 / len(self.names)
        second = int(self._now_s)
        events = [
            self.report(name, at_s)
            for whole in range(second, int(until_s) + 1)
            for index, name in enumerate(self.names)
            if self._now_s <= (at_s := whole + index * step) < until_s and name not in silent
        ]
        self.state, refused = apply_reports(self.state, events, SETTINGS)
        assert not refused
        self._now_s = until_s
        return self.see(until_s)

    def see(self, at_s: float) -> Snapshot:
        return snapshot(self.state, at_s, self.plan, SETTINGS)


@pytest.mark.parametrize(("nodes", "dead"), [(3, 1), (3, 2), (10, 1), (10, 5)])
def test_a_loss_that_others_outlive_is_seen_in_time(world: SimpleNamespace, nodes: int, dead: int) -> None:
    site = Site(world, nodes)
    site.run(10.0)
    lost = frozenset(site.names[:dead])
    seen = site.run(13.0 + 1e-6, silent=lost)  # the first was heard last at 9.0 s, and all by 10.0 s
    assert seen.lost_nodes
    assert site.run(13.0, silent=lost).lost_nodes == lost
    assert seen.suspicion == ""


def test_silence_of_most_members_is_not_believed(world: SimpleNamespace) -> None:
    site = Site(world, 10)
    before = site.run(10.0)
    silent = frozenset(site.names[:8])
    for at_s in (12.2, 12.6, 13.0, 13.5, 20.0, 40.0):  # also while some have timed out and others are about to
        seen = site.run(at_s, silent=silent)
        assert seen.lost_nodes == frozenset()
        assert [node.name for node in seen.nodes] == [node.name for node in before.nodes]
        assert gone_members(site.state, at_s, SETTINGS) == frozenset()
    assert "8 of 11 members fell silent together" in seen.suspicion


def test_members_that_are_not_heard_are_trusted_less_and_less(world: SimpleNamespace) -> None:
    site = Site(world, 4)
    site.run(10.0)
    trust = [site.see(at_s).nodes[0].confidence for at_s in (10.0, 13.5, 18.0, 30.0)]
    links = [site.see(at_s).links[0].confidence for at_s in (10.0, 13.5, 18.0, 30.0)]
    assert trust[0] == 1.0
    assert trust == sorted(set(trust), reverse=True)
    assert links == sorted(set(links), reverse=True)
    assert site.see(30.0).nodes[0].age_s > site.see(13.5).nodes[0].age_s > 0


def test_while_nobody_reports_nobody_is_lost_however_long(world: SimpleNamespace) -> None:
    for nodes in (1, 2, 3, 10):
        site = Site(world, nodes)
        site.run(10.0)
        for at_s in (12.5, 13.5, 60.0, 1000.0):
            seen = site.see(at_s)
            assert (len(seen.nodes), seen.lost_nodes) == (nodes, frozenset())
        assert seen.suspicion


def test_a_failure_that_is_reported_counts_all_the_same(world: SimpleNamespace) -> None:
    site = Site(world, 5)
    site.run(10.0)
    site.state = apply_failure(site.state, MemberFailed(12.0, "n02", "its stream broke"))
    assert site.see(14.0).lost_nodes == gone_members(site.state, 14.0, SETTINGS) == {"n02"}
    assert site.see(14.0).suspicion


def test_one_that_was_dead_before_stays_dead(world: SimpleNamespace) -> None:
    site = Site(world, 5)
    site.run(10.0)
    site.run(30.0, silent=frozenset({"n01"}))
    assert site.see(40.0).lost_nodes == {"n01"}


def test_when_the_first_are_heard_again_the_others_get_time_to_connect_and_no_more(world: SimpleNamespace) -> None:
    site = Site(world, 9)
    site.run(10.0)
    site.run(20.0, silent=frozenset(site.names))
    back = frozenset(site.names[4:])
    for at_s in (20.7, 21.0, 22.0, 23.0):
        assert site.run(at_s, silent=frozenset(site.names) - back).lost_nodes == frozenset()
    assert site.run(26.0, silent=frozenset(site.names) - back).lost_nodes == set(site.names[:4])
    assert site.run(29.0).lost_nodes == frozenset()
    assert site.see(29.0).suspicion == ""


def test_silence_is_believed_in_the_end_where_others_go_on_reporting(world: SimpleNamespace) -> None:
    site = Site(world, 10)
    site.run(10.0)
    silent = frozenset(site.names[:8])
    assert site.run(60.0, silent=silent).lost_nodes == frozenset()
    assert site.run(80.0, silent=silent).lost_nodes == silent
