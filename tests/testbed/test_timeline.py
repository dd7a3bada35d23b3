"""What happens on a testbed and when."""

from itertools import pairwise

import pytest

from mec_apps.cli.requests import CliError
from mec_apps.cli.testbed.timeline import CpuShare, LinkRate, NodeKilled, NodeStarted, fade, from_events, replayed
from mec_platform.scenario.scenario import EventSpec, NodeSpec, Scenario
from mec_platform.traces.bandwidth import BandwidthSample


def test_a_fade_goes_down_in_both_directions_by_equal_factors_and_ends_where_it_should() -> None:
    changes = [change for change in fade("a", "b", 100.0, 1.0, begin_s=10, over_s=20) if isinstance(change, LinkRate)]
    forth = [change for change in changes if change.source == "a"]
    assert [change.bytes_per_s for change in changes if change.source == "b"] == [c.bytes_per_s for c in forth]
    assert forth[-1] == LinkRate(30.0, "a", "b", pytest.approx(1.0))
    factors = [b.bytes_per_s / a.bytes_per_s for a, b in pairwise(forth)]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_a_trace_begins_again_when_it_ends() -> None:
    samples = (BandwidthSample(0, 10.0), BandwidthSample(5, 20.0))
    changes = list(replayed("a", "b", samples, duration_s=23))
    assert [(change.at_s, change.bytes_per_s) for change in changes if isinstance(change, LinkRate)] == [
        (0, 10.0),
        (5, 20.0),
        (10, 10.0),
        (15, 20.0),
        (20, 10.0),
    ]


def test_events_are_taken_back_when_they_say_so() -> None:
    events = (
        EventSpec(5, until_s=9, node="edge", lost=True),
        EventSpec(6, until_s=7, node="edge", cpu_share=0.5),
        EventSpec(1, until_s=2, source="gateway", target="edge", mbit_per_s=8),
    )
    static = {("gateway", "edge"): 1e7, ("edge", "gateway"): 2e7}
    changes = list(from_events(Scenario((NodeSpec("edge"),), events=events), static))
    assert changes == [
        NodeKilled(5, "edge"),
        NodeStarted(9, "edge"),
        CpuShare(6, "edge", 0.5),
        CpuShare(7, "edge", 1.0),
        LinkRate(1, "gateway", "edge", 1e6),
        LinkRate(2, "gateway", "edge", 1e7),
        LinkRate(1, "edge", "gateway", 1e6),
        LinkRate(2, "edge", "gateway", 2e7),
    ]


def test_what_a_testbed_cannot_do_is_refused_and_says_who_can() -> None:
    scenario = Scenario((NodeSpec("edge"),), events=(EventSpec(3, node="edge", trusted=False),))
    with pytest.raises(CliError, match=r"at 3 s cannot be played.*mec simulate"):
        list(from_events(scenario, {}))
