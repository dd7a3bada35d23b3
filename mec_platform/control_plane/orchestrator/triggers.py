"""What has changed since the plan was committed: the world then (`Baseline`) against the snapshot now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mec_platform.control_plane.orchestrator.decisions import Trigger
from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.split_plan import SplitPlan


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that got worse, with numbers for people."""

    trigger: Trigger
    text: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """Measurements of the nodes and links that a plan uses, from when it was first seen as the committed plan."""

    epoch: int
    links: Mapping[tuple[str, str], float]  # bytes per second
    block_times: Mapping[str, float]  # seconds


def take_baseline(snapshot: Snapshot, plan: SplitPlan, earlier: Baseline | None) -> Baseline:
    """The baseline of `plan`; what an earlier one of the same epoch holds stays, what was unmeasured then is added."""
    links = {
        (link.source, link.target): link.bytes_per_s
        for link in snapshot.links
        if (link.source, link.target) in set(links_in_use(snapshot, plan))
    }
    times = {node.name: node.block_time_s for node in snapshot.nodes if node.name in plan.nodes}
    if earlier is None or earlier.epoch != plan.epoch:
        return Baseline(plan.epoch, links, times)
    return Baseline(plan.epoch, links | dict(earlier.links), times | dict(earlier.block_times))


def links_in_use(snapshot: Snapshot, plan: SplitPlan) -> Iterator[tuple[str, str]]:
    """Directions that tokens take: from every gateway into the chain, along it, and back."""
    for gateway in snapshot.gateways:
        yield gateway.name, plan.nodes[0]
        yield plan.nodes[-1], gateway.name
    yield from zip(plan.nodes, plan.nodes[1:], strict=False)


def find_degradations(
    snapshot: Snapshot, plan: SplitPlan, baseline: Baseline, settings: PolicySettings
) -> list[Finding]:
    """Links in use that fell and nodes of the plan that became slow, links first."""
    findings = []
    for source, target in dict.fromkeys(links_in_use(snapshot, plan)):
        link = snapshot.link(source, target)
        then = baseline.links.get((source, target))
        if link is None or then is None:
            continue
        now = link.bytes_per_s
        if now < settings.link_drop_share * then:
            text = f"link {source} -> {target} fell from {_rate(then)} to {_rate(now)}"
            findings.append(Finding(Trigger.LINK_DEGRADED, text))
        elif now < settings.min_link_bytes_per_s:
            text = f"link {source} -> {target} carries {_rate(now)}, below {_rate(settings.min_link_bytes_per_s)}"
            findings.append(Finding(Trigger.LINK_DEGRADED, text))
    for name in plan.nodes:
        node, then = snapshot.node(name), baseline.block_times.get(name)
        if node is not None and then and node.block_time_s >= settings.slow_node_factor * then:
            text = f"node {name} slowed from {then * 1e3:.3g} ms to {node.block_time_s * 1e3:.3g} ms per block"
            findings.append(Finding(Trigger.NODE_SLOW, text))
    return findings


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.3g} MB/s"
