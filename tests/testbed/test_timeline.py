"""What happens on a testbed and when: what the simulator's world says, as far as a kernel can make it true."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from mec_apps.cli.requests import CliError
from mec_apps.cli.testbed.timeline import (
    CpuShare,
    LinkRate,
    NodeKilled,
    NodeStarted,
    changes_of,
    fade,
    not_carried_out,
    refuse_what_is_not_played,
    settings_at_start,
)
from mec_platform.scenario.scenario import EventSpec, LinkSpec, MeasurementSpec, NodeSpec, Scenario
from mec_platform.simulation.series import Series
from mec_platform.simulation.world import LinkSeries, World

LINK = LinkSpec("gateway", "edge", mbit_per_s=80)


def scenario(**changes: Any) -> Scenario:
    return Scenario(**({"nodes": (NodeSpec("edge"),), "links": (LINK,)} | changes))


def test_a_fade_goes_down_in_both_directions_by_equal_factors_and_ends_where_it_should() -> None:
    changes = [change for change in fade("a", "b", 100.0, 1.0, begin_s=10, over_s=20) if isinstance(change, LinkRate)]
    forth = [change for change in changes if change.source == "a"]
    assert [change.bytes_per_s for change in changes if change.source == "b"] == [c.bytes_per_s for c in forth]
    assert forth[-1] == LinkRate(30.0, "a", "b", pytest.approx(1.0))
    factors = [b.bytes_per_s / a.bytes_per_s for a, b in pairwise(forth)]
    assert factors == pytest.approx([factors[0]] * len(factors))


def test_links_begin_at_their_rates_and_slow_nodes_with_their_part_of_a_processor() -> None:
    nodes = (NodeSpec("edge", block_us=200), NodeSpec("far", block_us=800))
    one_way = LinkSpec("far", "edge", mbit_per_s=8, one_way=True)
    assert settings_at_start(World(scenario(nodes=nodes, links=(LINK, one_way)), {})) == [
        LinkRate(0.0, "gateway", "edge", 1e7),
        LinkRate(0.0, "edge", "gateway", 1e7),
        LinkRate(0.0, "far", "edge", 1e6),
        CpuShare(0.0, "edge", 1.0),
        CpuShare(0.0, "far", 0.25),
    ]


def test_a_trace_sets_rates_and_begins_again_when_it_ends() -> None:
    rates = Series.of([0.0, 5.0], [10.0, 20.0])
    found = changes_of(World(scenario(duration_s=18), {0: LinkSeries(None, rates)}))
    forth = [each for each in found if isinstance(each, LinkRate) and each.source == "gateway"]
    assert [(each.at_s, each.bytes_per_s) for each in forth] == [(5, 20.0), (10, 10.0), (15, 20.0)]
    assert len(found) == 2 * len(forth)


def test_events_take_processors_lose_nodes_and_set_rates_until_they_are_taken_back() -> None:
    events = (
        EventSpec(5, until_s=9, node="edge", lost=True),
        EventSpec(6, until_s=7, node="edge", cpu_share=0.5),
        EventSpec(1, until_s=2, source="gateway", target="edge", mbit_per_s=8),
    )
    assert changes_of(World(scenario(events=events), {})) == [
        LinkRate(1, "gateway", "edge", 1e6),
        LinkRate(1, "edge", "gateway", 1e6),
        LinkRate(2, "gateway", "edge", 1e7),
        LinkRate(2, "edge", "gateway", 1e7),
        NodeKilled(5, "edge"),
        CpuShare(6, "edge", 0.5),
        CpuShare(7, "edge", 1.0),
        NodeStarted(9, "edge"),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"events": (EventSpec(3, node="edge", trusted=False),)}, r"at 3 s cannot be played.*mec simulate"),
        ({"events": (EventSpec(3, node="edge", silent=True),)}, "at 3 s cannot be played"),
        ({"events": (EventSpec(3, source="gateway", target="edge", round_trip_ms=9),)}, "at 3 s cannot be played"),
        ({"links": (LinkSpec("gateway", "edge", radio="drive.txt"),)}, "radio trace.*no delays"),
        ({"nodes": (NodeSpec("edge", joins_s=5),)}, "there from the start"),
        ({"nodes": (NodeSpec("edge", local_blocks=()),)}, "all weights"),
    ],
)
def test_what_would_make_another_story_of_it_is_refused_and_says_who_can(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CliError, match=words):
        refuse_what_is_not_played(scenario(**changes))


def test_what_the_testbed_has_its_own_truth_of_is_announced() -> None:
    noted = " ".join(not_carried_out(scenario(measurement=MeasurementSpec(noise=0.5), tick_s=2.0)))
    for words in ("round trips of 2 ms", "block_us", "noise", "tick_s of 2"):
        assert words in noted
    assert "sizes of the model" not in noted
