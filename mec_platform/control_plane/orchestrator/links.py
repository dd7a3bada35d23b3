"""Links that a plan uses, as they were measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from mec_platform.control_plane.orchestrator.settings import PolicySettings
from mec_platform.domain.capacity import LinkCapacity, LinkForecast, Snapshot
from mec_platform.domain.link_table import LinkTable
from mec_platform.domain.split_plan import SplitPlan


def hops_of(snapshot: Snapshot, nodes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Directions that tokens take: from every gateway into the chain, along it, and back; each once."""
    hops = [hop for gateway in snapshot.gateways for hop in ((gateway.name, nodes[0]), (nodes[-1], gateway.name))]
    return tuple(dict.fromkeys([*hops, *pairwise(nodes)]))


def measured_links(snapshot: Snapshot, hops: Iterable[tuple[str, str]]) -> dict[tuple[str, str], LinkCapacity]:
    """Those of `hops` that were measured, in their order: by the members themselves, or else between their sites."""
    wanted = dict.fromkeys(hops)
    names = {name for hop in wanted for name in hop}
    own = {(link.source, link.target): link for link in snapshot.links if link.source in names}
    table = LinkTable(own, {}, {})
    if snapshot.site_links and not own.keys() >= wanted.keys():
        sites = {node.name: node.site for node in snapshot.nodes if node.name in names}
        sites |= {gateway.name: gateway.site for gateway in snapshot.gateways if gateway.name in names}
        table = LinkTable(own, {(link.source, link.target): link for link in snapshot.site_links}, sites)
    found = {hop: table.link(*hop) for hop in wanted}
    return {hop: link for hop, link in found.items() if link is not None}


def links_in_use(snapshot: Snapshot, plan: SplitPlan) -> dict[tuple[str, str], LinkCapacity]:
    """The measured links that tokens of `plan` take."""
    return measured_links(snapshot, hops_of(snapshot, plan.nodes))


def is_believed(forecast: LinkForecast | None, settings: PolicySettings) -> bool:
    """Whether forecasts of this kind have been right often enough to count."""
    return forecast is not None and forecast.confidence >= settings.min_forecast_confidence
