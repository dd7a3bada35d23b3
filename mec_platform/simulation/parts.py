"""Cuts a scenario into parts that have nothing to do with each other, and puts their runs together again.

Everything random belongs to names, so a deployment fares the same in a part as in the whole: parts may run in processes
of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from mec_platform.scenario.scenario import DeploymentSpec, Scenario
from mec_platform.simulation.record import RunRecord


def independent_parts(scenario: Scenario, count: int) -> tuple[Scenario, ...]:
    """At most `count` scenarios of whole groups of deployments: no group shares nodes, machines or gateways with another."""
    groups: list[tuple[list[DeploymentSpec], set[str]]] = []
    for spec in scenario.deployments:
        joined, taken = [spec], _seats(scenario, spec)
        rest = []
        for specs, seats in groups:
            if seats & taken:
                joined, taken = specs + joined, seats | taken
            else:
                rest.append((specs, seats))
        groups = [*rest, (joined, taken)]
    if len(groups) < 2 or count < 2:
        return (scenario,)
    shares = [groups[start::count] for start in range(min(count, len(groups)))]
    return tuple(_part(scenario, [spec for specs, _ in share for spec in specs]) for share in shares)


def joined_record(parts: Sequence[RunRecord], order: Sequence[str]) -> RunRecord:
    """The run of the whole; deployments in the order of the scenario."""
    deployments = {each.name: each for part in parts for each in part.deployments}
    busy_s: dict[str, float] = {}
    for part in parts:
        busy_s |= part.busy_s
    return RunRecord(
        parts[0].policy,
        parts[0].duration_s,
        max(part.ended_s for part in parts),
        tuple(deployments[name] for name in order),
        busy_s,
    )


def _seats(scenario: Scenario, spec: DeploymentSpec) -> set[str]:
    nodes = [node for node in scenario.nodes if not node.models or spec.name in node.models]
    gateways = spec.gateways or tuple(gateway.name for gateway in scenario.gateways)
    return {f"machine {node.machine}" if node.machine else f"node {node.name}" for node in nodes} | {
        f"gateway {name}" for name in gateways
    }


def _part(scenario: Scenario, specs: list[DeploymentSpec]) -> Scenario:
    names = {spec.name for spec in specs}
    gateways = {name for spec in specs for name in spec.gateways}
    nodes = tuple(node for node in scenario.nodes if not node.models or names.intersection(node.models))
    members = {node.name for node in nodes} | gateways | {node.site for node in nodes}
    return replace(
        scenario,
        nodes=nodes,
        gateways=tuple(gateway for gateway in scenario.gateways if not gateways or gateway.name in gateways),
        deployments=tuple(specs),
        links=tuple(each for each in scenario.links if {each.source, each.target} <= members | {"*"}),
        events=tuple(each for each in scenario.events if {each.node, each.source, each.target} <= members | {"*", ""}),
    )
