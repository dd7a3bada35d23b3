"""What happens to a testbed and when: the world of a simulation, as far as a kernel can make it true.

Rates of links and what becomes of nodes are asked of the simulator's own `World`, so that both play the same. What a
scenario says and nothing here carries out is refused where it would change the story, and announced where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, permutations

from mec_apps.cli.requests import CliError
from mec_platform.scenario.scenario import MeasurementSpec, ModelSpec, Scenario
from mec_platform.simulation.world import MemberState, World

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


Setting = LinkRate | CpuShare
"""What can be made true before any process runs."""

Change = Setting | NodeKilled | NodeStarted


def fade(source: str, target: str, start: float, end: float, begin_s: float, over_s: float) -> list[Change]:
    """Both directions go from `start` to `end` bytes per second, by equal factors in equal times."""
    changes: list[Change] = []
    for step in range(1, FADE_STEPS + 1):
        rate = start * (end / start) ** (step / FADE_STEPS)
        at_s = begin_s + over_s * step / FADE_STEPS
        changes += [LinkRate(at_s, source, target, rate), LinkRate(at_s, target, source, rate)]
    return changes


def settings_at_start(world: World) -> list[Setting]:
    """Rates of links and shares of processors when time begins.

    A node that the scenario says is slower than the fastest one gets that much less of its processor; shares of events are
    of that.
    """
    found: list[Setting] = []
    for source, target in permutations((*world.gateway_specs, *world.node_specs), 2):
        state = world.link(source, target, 0.0)
        if state is not None:
            found.append(LinkRate(0.0, source, target, state.bytes_per_s))
    return found + [
        CpuShare(0.0, name, _speed(world, name) * world.member(name, 0.0).cpu_share) for name in world.node_specs
    ]


def changes_of(world: World) -> list[Change]:
    """What happens after that, in order of time."""
    found: list[Change] = []
    for source, target in permutations((*world.gateway_specs, *world.node_specs), 2):
        found += _rates(world, source, target)
    for name in world.node_specs:
        for before, after in pairwise([0.0, *world.change_times]):
            found += _became(world, name, after, world.member(name, before), world.member(name, after))
    within = (change for change in found if change.at_s < world.scenario.duration_s)
    return sorted(within, key=lambda change: change.at_s)


def refuse_what_is_not_played(scenario: Scenario) -> None:
    """Raises CliError for what would make another story of it if it were left out."""
    for link in scenario.links:
        if link.radio:
            raise CliError(
                f"link {link.source} -> {link.target} has a radio trace, and the kernel's shaping has rates but no delays; "
                "`mec simulate` plays it"
            )
    for event in scenario.events:
        if event.silent or event.trusted is not None or event.round_trip_ms is not None or event.node == "*":
            raise CliError(
                f"the event at {event.at_s:g} s cannot be played by a testbed: it kills nodes, takes shares of processors "
                "and sets rates of links; `mec simulate` plays all events"
            )
    for node in scenario.nodes:
        if node.joins_s > 0 or node.models or node.local_blocks is not None:
            raise CliError(
                f"node {node.name}: in a testbed nodes are there from the start and hold all weights of the one model; "
                "`mec simulate` plays joins_s, models and local_blocks"
            )


def not_carried_out(scenario: Scenario) -> list[str]:
    """What the scenario says and a testbed has its own truth of, in words."""
    found = []
    trips = sorted({f"{link.round_trip_ms:g}" for link in scenario.links})
    if trips:
        found.append(f"round trips of {', '.join(trips)} ms: the kernel delays nothing, they are those of this machine")
    found.append(
        "block_us and the like: nodes compute as fast as this machine does; slower ones have quotas in proportion"
    )
    if any(spec.model != ModelSpec() for spec in scenario.deployments):
        found.append("sizes of the model: it is the one that --model names")
    if scenario.measurement != MeasurementSpec():
        found.append("noise and loss of measurements: members measure for themselves")
    if scenario.tick_s != 1.0:
        found.append(f"tick_s of {scenario.tick_s:g}: the platform decides every second")
    return found


def _speed(world: World, name: str) -> float:
    return min(spec.block_us for spec in world.node_specs.values()) / world.node_specs[name].block_us


def _rates(world: World, source: str, target: str) -> Iterator[Change]:
    """Every change of one direction's rate."""
    state, at_s = world.link(source, target, 0.0), 0.0
    while state is not None and (at_s := world.next_link_change_s(source, target, at_s)) < world.scenario.duration_s:
        before, state = state, world.link(source, target, at_s)
        if state is not None and state.bytes_per_s != before.bytes_per_s:
            yield LinkRate(at_s, source, target, state.bytes_per_s)


def _became(world: World, name: str, at_s: float, before: MemberState, after: MemberState) -> Iterator[Change]:
    if before.alive and not after.alive:
        yield NodeKilled(at_s, name)
    if after.alive and not before.alive:
        yield NodeStarted(at_s, name)
    if after.cpu_share != before.cpu_share:
        yield CpuShare(at_s, name, _speed(world, name) * after.cpu_share)
