"""A large world: many deployments, each over a site of its own nodes, whose links fade and whose nodes slow down and die."""

from __future__ import annotations

from mec_platform.scenario.scenario import (
    DemandSpec,
    DeploymentSpec,
    EventSpec,
    GatewaySpec,
    LinkSpec,
    MeasurementSpec,
    NodeSpec,
    Scenario,
)
from mec_platform.simulation.noise import uniform

HOUR_S = 3600.0

LARGE_MEASURED_EVERY_S, LARGE_TICK_S = 60.0, 5.0
"""A platform of this size decides every five seconds, and members that have twenty peers probe each of them less often."""

EVENTS_PER_DEPLOYMENT = 12
"""In an hour: one every five minutes, so that no deployment is left in peace for long."""


def large_scenario(nodes: int, deployments: int, seed: int = 1) -> Scenario:
    """`nodes` nodes shared out among `deployments`, one simulated hour.

    Nodes of a deployment are of three speeds and hold half of the model each. Every five minutes on average something
    happens to it: a link of its gateway slows down, a node loses half of its compute, a node dies, each for two minutes.
    """
    node_specs, gateways, specs, links, events = [], [], [], [], []
    for number in range(deployments):
        own = nodes // deployments + (number < nodes % deployments)
        name, gateway = f"model-{number + 1}", f"gateway-{number + 1}"
        names = [f"node-{number + 1}-{each + 1}" for each in range(own)]
        gateways.append(GatewaySpec(gateway, site=f"site-{number + 1}"))
        for each, node in enumerate(names):
            speed = 1.0 + each % 3
            node_specs.append(
                NodeSpec(
                    name=node,
                    site=f"site-{number + 1}",
                    models=(name,),
                    memory_mib=256,
                    block_us=200 * speed,
                    row_us=60 * speed,
                    head_us=600 * speed,
                    head_row_us=200 * speed,
                )
            )
            links.append(LinkSpec(gateway, node, mbit_per_s=100, round_trip_ms=4))
        links.append(LinkSpec(f"site-{number + 1}", f"site-{number + 1}", mbit_per_s=1000, round_trip_ms=1))
        specs.append(DeploymentSpec(name, gateways=(gateway,), demand=DemandSpec(per_s=0.1, answer_tokens=128)))
        events += [_event(seed, number, each, gateway, names) for each in range(EVENTS_PER_DEPLOYMENT)]
    return Scenario(
        nodes=tuple(node_specs),
        deployments=tuple(specs),
        gateways=tuple(gateways),
        links=tuple(links),
        events=tuple(events),
        measurement=MeasurementSpec(measured_every_s=LARGE_MEASURED_EVERY_S),
        title=f"{nodes} nodes, {deployments} deployments",
        seed=seed,
        duration_s=HOUR_S,
        tick_s=LARGE_TICK_S,
    )


def _event(seed: int, deployment: int, number: int, gateway: str, names: list[str]) -> EventSpec:
    at_s = uniform(seed, "large", deployment, number, 0) * HOUR_S
    node = names[int(uniform(seed, "large", deployment, number, 1) * min(len(names), 4))]
    match int(uniform(seed, "large", deployment, number, 2) * 3):
        case 0:
            return EventSpec(at_s, at_s + 120, source=gateway, target=node, mbit_per_s=1, round_trip_ms=80)
        case 1:
            return EventSpec(at_s, at_s + 120, node=node, cpu_share=0.5)
        case _:
            return EventSpec(at_s, at_s + 120, node=node, lost=True)
