"""What happens to a testbed and when: rates of links and shares of processors over time, from traces and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from mec_apps.cli.requests import CliError
from mec_platform.scenario.scenario import EventSpec, Scenario, node_names
from mec_platform.scenario.snapshots import static_links
from mec_platform.traces.bandwidth import BandwidthSample, read_bandwidth_trace

FADE_STEPS = 20


@dataclass(frozen=True, slots=True)
class LinkRate:
    """From `at_s` on one direction carries that much."""

    at_s: float
    source: str
    target: str
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class CpuShare:
    """From `at_s` on a node has that share of the cores that it computes with."""

    at_s: float
    node: str
    share: float


@dataclass(frozen=True, slots=True)
class NodeKilled:
    """At `at_s` the node's process gets SIGKILL."""

    at_s: float
    node: str


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """At `at_s` the node's process is started, again after it was killed."""

    at_s: float
    node: str


Change = LinkRate | CpuShare | NodeKilled | NodeStarted


def fade(source: str, target: str, start: float, end: float, begin_s: float, over_s: float) -> list[Change]:
    """Both directions go from `start` to `end` bytes per second, by equal factors in equal times."""
    changes: list[Change] = []
    for step in range(1, FADE_STEPS + 1):
        rate = start * (end / start) ** (step / FADE_STEPS)
        at_s = begin_s + over_s * step / FADE_STEPS
        changes += [LinkRate(at_s, source, target, rate), LinkRate(at_s, target, source, rate)]
    return changes


def replayed(source: str, target: str, samples: tuple[BandwidthSample, ...], duration_s: float) -> Iterator[Change]:
    """A bandwidth trace on one direction, from its beginning again when it ends."""
    length_s = samples[-1].at_s + (samples[-1].at_s - samples[-2].at_s if len(samples) > 1 else duration_s)
    begin_s = 0.0
    while begin_s < duration_s:
        for sample in samples:
            if begin_s + sample.at_s < duration_s:
                yield LinkRate(begin_s + sample.at_s, source, target, sample.bytes_per_s)
        begin_s += max(length_s, 1.0)


def static_rates(scenario: Scenario) -> dict[tuple[str, str], float]:
    """Bytes per second of every direction between two members before anything happens."""
    sites = {spec.name: spec.site for spec in scenario.gateways}
    sites |= {name: spec.site for spec in scenario.nodes for name in node_names(spec)}
    links = {(link.source, link.target): link for link in static_links(scenario.links, scenario.sites, set(sites))}
    rates = {}
    for source, target in permutations(sites, 2):
        link = links.get((source, target)) or links.get((sites[source], sites[target]))
        if link is not None:
            rates[source, target] = link.bytes_per_s
    return rates


def from_traces(scenario: Scenario, static: Mapping[tuple[str, str], float]) -> Iterator[Change]:
    """Rates of links that have a bandwidth trace. Raises TraceError, or CliError for a radio trace: the kernel delays nothing."""
    for link in scenario.links:
        if link.radio:
            raise CliError(
                f"link {link.source} -> {link.target} has a radio trace, and the kernel's shaping has rates but no delays; "
                "`mec simulate` plays it"
            )
        if not link.bandwidth:
            continue
        samples = read_bandwidth_trace(Path(scenario.folder) / link.bandwidth, link.bandwidth_scale)
        for source, target in static:
            forth = _matches(link.source, source) and _matches(link.target, target)
            back = _matches(link.source, target) and _matches(link.target, source) and not link.one_way
            if forth or back:
                yield from replayed(source, target, samples, scenario.duration_s)


def _matches(pattern: str, member: str) -> bool:
    return pattern in ("*", member)


def from_events(scenario: Scenario, static: Mapping[tuple[str, str], float]) -> Iterator[Change]:
    """The scenario's events; `static` are the rates that links have without any.

    Raises:
        CliError: an event asks for what a testbed cannot do.
    """
    for event in scenario.events:
        yield from _of_event(event, static)


def _of_event(event: EventSpec, static: Mapping[tuple[str, str], float]) -> Iterator[Change]:
    if (
        event.silent
        or event.trusted is not None
        or event.round_trip_ms is not None
        or "*" in (event.node, event.source)
    ):
        raise CliError(
            f"the event at {event.at_s:g} s cannot be played by a testbed: it kills nodes, takes shares of processors and "
            "sets rates of links between named members; `mec simulate` plays all events"
        )
    if event.node and event.lost:
        yield NodeKilled(event.at_s, event.node)
        if event.until_s is not None:
            yield NodeStarted(event.until_s, event.node)
    if event.node and event.cpu_share is not None:
        yield CpuShare(event.at_s, event.node, event.cpu_share)
        if event.until_s is not None:
            yield CpuShare(event.until_s, event.node, 1.0)
    if event.source and event.mbit_per_s is not None:
        for pair in ((event.source, event.target), (event.target, event.source)):
            yield LinkRate(event.at_s, *pair, event.mbit_per_s * 1e6 / 8)
            if event.until_s is not None and pair in static:
                yield LinkRate(event.until_s, *pair, static[pair])
