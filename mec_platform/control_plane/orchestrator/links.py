"""Links that a plan uses, as they were measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.domain.capacity import LinkCapacity, LinkForecast, Snapshot
from mec_platform.domain.split_plan import SplitPlan


def hops_of(snapshot: Snapshot, nodes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Directions that tokens take: from every gateway into the chain, along it, and back; each once."""
    hops = [hop for gateway in snapshot.gateways for hop in ((gateway.name, nodes[0]), (nodes[-1], gateway.name))]
    return tuple(dict.fromkeys([*hops, *pairwise(nodes)]))


def measured_links(snapshot: Snapshot, hops: Iterable[tuple[str, str]]) -> dict[tuple[str, str], LinkCapacity]:
    """Those of `hops` that were measured, in their order: by the members themselves, or else between their sites."""
    wanted = dict.fromkeys(hops)
    found = {(link.source, link.target): link for link in snapshot.links if (link.source, link.target) in wanted}
    if snapshot.site_links and len(found) < len(wanted):
        names = {name for hop in wanted for name in hop}
        sites = {node.name: node.site for node in snapshot.nodes if node.name in names}
        sites |= {gateway.name: gateway.site for gateway in snapshot.gateways if gateway.name in names}
        between = {(link.source, link.target): link for link in snapshot.site_links}
        for hop in wanted:
            link = between.get((sites.get(hop[0], ""), sites.get(hop[1], "")))
            if link is not None:
                found.setdefault(hop, link)
    return {hop: found[hop] for hop in wanted if hop in found}


def links_in_use(snapshot: Snapshot, plan: SplitPlan) -> dict[tuple[str, str], LinkCapacity]:
    """The measured links that tokens of `plan` take."""
    return measured_links(snapshot, hops_of(snapshot, plan.nodes))


def is_believed(forecast: LinkForecast | None, settings: PolicySettings) -> bool:
    """Whether forecasts of this kind have been right often enough to count."""
    return forecast is not None and forecast.confidence >= settings.min_forecast_confidence
