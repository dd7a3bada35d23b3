"""From monitoring's state to a snapshot, which is made of the objects of the last one wherever nothing has changed.

Decisions compare and index snapshots a thousand nodes wide once a second: what did not change is found again by identity,
in `MonitoringState.memo`, and neither built nor compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from mec_platform.control_plane.monitoring.mass_silence import first_of_mass_silence
from mec_platform.control_plane.monitoring.members import (
    Link,
    Member,
    MonitoringState,
    SnapshotMemo,
    is_alive,
    same_objects,
)
from mec_platform.control_plane.monitoring.radio_forecast import forecast_link
from mec_platform.control_plane.monitoring.series import FRESH_S, age_step_s, confidence
from mec_platform.control_plane.monitoring.settings import MonitoringSettings
from mec_platform.control_plane.monitoring.shared_radio import share_radio_links
from mec_platform.control_plane.monitoring.site_links import links_between_sites
from mec_platform.domain.capacity import GatewayCapacity, LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan


def snapshot(state: MonitoringState, now_s: float, plan: SplitPlan | None, settings: MonitoringSettings) -> Snapshot:
    """Everything that a decision may look at: live members in alphabetical order, links between them, lost nodes.

    Members of a mass silence are kept, with confidence that falls as they age, and `suspicion` says so. A node of the plan
    that has not been seen since the platform started is lost after `unseen_grace_s` only. One that was started again is there,
    and lost to the plan.
    """
    memo, members = state.memo, state.members
    silence_s = mass_silence_since(state, now_s, settings)
    present = tuple(
        sorted(
            name
            for name, member in members.items()
            if is_alive(member, now_s, settings) or _is_forgiven(member, silence_s)
        )
    )
    if present != memo.present:
        memo.see(present)
    nodes = _nodes(
        [members[name] for name in memo.present if members[name].capacity is not None], now_s, memo, settings
    )
    unseen_are_lost = now_s - state.started_s > settings.unseen_grace_s
    in_plan = () if plan is None else plan.members
    links = _links(members, now_s, memo, settings)
    there = {node.name for node in nodes}
    lost = frozenset(n for n in in_plan if n not in there and (n in members or unseen_are_lost))
    if plan is not None:
        lost |= {n for n in in_plan if n in there and members[n].latest.lacks_stage(plan)}
    return Snapshot(
        now_s=now_s,
        model=state.model,
        nodes=nodes,
        gateways=_gateways([members[name] for name in memo.present if members[name].gateway is not None], memo),
        links=_with_forecasts(links, state, now_s, settings),
        plan=plan,
        lost_nodes=lost,
        site_links=_site_links(links, members, memo),
        suspicion="" if silence_s is None else _suspicion(members, present, now_s, settings),
    )


def gone_members(state: MonitoringState, now_s: float, settings: MonitoringSettings) -> frozenset[str]:
    """Names of those that were seen and are gone: they left, failed, or are silent and not forgiven it."""
    silence_s = mass_silence_since(state, now_s, settings)
    return frozenset(
        name
        for name, member in state.members.items()
        if not is_alive(member, now_s, settings) and not _is_forgiven(member, silence_s)
    )


def mass_silence_since(state: MonitoringState, now_s: float, settings: MonitoringSettings) -> float | None:
    """Members last heard at this time or later are forgiven their silence; None where silence is believed."""
    heard = [member.latest.at_s for member in state.members.values() if member.gone_since_s is None]
    timeout_s = settings.report_timeout_s
    if not heard or now_s - min(heard) <= timeout_s:
        return None
    first_s = first_of_mass_silence(heard, now_s, timeout_s, settings.mass_silence)
    if now_s > state.forgiven_until_s:
        return first_s
    return state.silence_from_s if first_s is None else min(first_s, state.silence_from_s)


def _is_forgiven(member: Member, silence_s: float | None) -> bool:
    return silence_s is not None and member.gone_since_s is None and member.latest.at_s >= silence_s


def _suspicion(
    members: Mapping[str, Member], present: Sequence[str], now_s: float, settings: MonitoringSettings
) -> str:
    silent = [members[name] for name in present if not is_alive(members[name], now_s, settings)]
    if not silent:
        return ""
    longest_s = age_step_s(now_s - min(member.latest.at_s for member in silent))
    return (
        f"{len(silent)} of {len(present)} members fell silent together, more than {longest_s:.0f} s ago: "
        "more likely this platform's own network than all of them, so none of them counts as lost"
    )


def _nodes(
    nodes: Sequence[Member], now_s: float, memo: SnapshotMemo, settings: MonitoringSettings
) -> tuple[NodeCapacity, ...]:
    """A node that has not measured itself is taken for the slowest that has."""
    known = [node.capacity for node in nodes if node.capacity is not None]
    default_s = settings.default_block_time_s
    fallback = (
        max((node.block_time_s for node in known), default=0.0) or default_s,
        max((node.head_time_s for node in known), default=0.0) or default_s,
        max((node.prefill_block_time_s_per_row for node in known), default=0.0) or default_s,
    )
    found = tuple(
        _node(member.latest.name, capacity, age_step_s(now_s - member.latest.at_s), fallback, memo, settings)
        for member, capacity in zip(nodes, known, strict=True)
    )
    if not same_objects(found, memo.known_nodes):
        memo.known_nodes = found
    return memo.known_nodes


def _node(
    name: str,
    node: NodeCapacity,
    age_s: float,
    fallback: tuple[float, float, float],
    memo: SnapshotMemo,
    settings: MonitoringSettings,
) -> NodeCapacity:
    measured = node.block_time_s and node.head_time_s and node.prefill_block_time_s_per_row
    if measured and not age_s:
        return node
    key = (age_s, *fallback)
    remembered = memo.nodes.get(name)
    if remembered is not None and remembered[0] is node and remembered[1] == key:
        return remembered[2]
    told = replace(
        node,
        block_time_s=node.block_time_s or fallback[0],
        head_time_s=node.head_time_s or fallback[1],
        prefill_block_time_s_per_row=node.prefill_block_time_s_per_row or fallback[2],
        age_s=age_s,
        confidence=trust_of_silent(age_s, settings),
    )
    memo.nodes[name] = (node, key, told)
    return told


def trust_of_silent(age_s: float, settings: MonitoringSettings) -> float:
    """How far a member that was last heard `age_s` ago is trusted to be there: 1 with the latest report, then halving."""
    return round(float(0.5 ** (age_s / settings.report_timeout_s)), 3)


def _gateways(gateways: Sequence[Member], memo: SnapshotMemo) -> tuple[GatewayCapacity, ...]:
    found = tuple(member.gateway for member in gateways if member.gateway is not None)
    if not same_objects(found, memo.known_gateways):
        memo.known_gateways = found
    return memo.known_gateways


def _links(
    members: Mapping[str, Member], now_s: float, memo: SnapshotMemo, settings: MonitoringSettings
) -> tuple[LinkCapacity, ...]:
    """Links between members that are present, as old as their latest samples are."""
    found = tuple(chain.from_iterable(_links_of(members[name], now_s, memo, settings) for name in memo.present))
    if not same_objects(found, memo.known_links):
        memo.known_links = found
    return memo.known_links


def _site_links(
    links: tuple[LinkCapacity, ...], members: Mapping[str, Member], memo: SnapshotMemo
) -> tuple[LinkCapacity, ...]:
    """Links between sites; the same objects where no link and no site has changed."""
    sites = {name: members[name].latest.site for name in memo.present if members[name].latest.site}
    if not sites:
        return ()
    if links is not memo.site_basis[0] or sites != memo.site_basis[1]:
        found = links_between_sites(links, sites)
        memo.site_basis = (links, sites)
        if found != memo.site_links:
            memo.site_links = found
    return memo.site_links


def _with_forecasts(
    links: tuple[LinkCapacity, ...], state: MonitoringState, now_s: float, settings: MonitoringSettings
) -> tuple[LinkCapacity, ...]:
    """Links of members that are behind a UE are made alike and get its forecast; all others stay the same objects."""
    ues_of = {name: member.latest.ue for name, member in state.members.items() if member.latest.ue}
    if not ues_of:
        return links
    links = share_radio_links(links, ues_of)
    behind = {name: ue for name, ue in ues_of.items() if ue in state.radio.ues}
    if not behind:
        return links

    def told(link: LinkCapacity) -> LinkCapacity:
        if behind.get(link.source) == behind.get(link.target):
            return link  # what is between members behind one UE does not go over its radio link
        ues = tuple(dict.fromkeys(behind[end] for end in (link.source, link.target) if end in behind))
        forecast = forecast_link(link, ues, state.radio, now_s, settings.radio) if ues else None
        return link if forecast is None else replace(link, forecast=forecast)

    return tuple(told(link) for link in links)


def _links_of(
    member: Member, now_s: float, memo: SnapshotMemo, settings: MonitoringSettings
) -> tuple[LinkCapacity, ...]:
    if not member.fresh:
        return ()
    name, there = member.latest.name, memo.there
    if now_s - member.oldest_sample_s < FRESH_S:
        remembered = memo.fresh.get(name)
        if remembered is not None and remembered[0] is member.fresh and remembered[1] is there:
            return remembered[2]
        told = tuple(link for link in member.fresh if link.target in there)
        memo.fresh[name] = (member.fresh, there, told)
        return told
    return tuple(
        _aged(link.capacity, link, now_s, memo, settings)
        for peer, link in member.links.items()
        if link.capacity is not None and peer in there
    )


def _aged(
    fresh: LinkCapacity, link: Link, now_s: float, memo: SnapshotMemo, settings: MonitoringSettings
) -> LinkCapacity:
    assert link.rate is not None
    assert link.trip is not None
    rate_age_s, trip_age_s = age_step_s(now_s - link.rate.at_s), age_step_s(now_s - link.trip.at_s)
    if not rate_age_s and not trip_age_s:
        return fresh
    key = (fresh.source, fresh.target)
    remembered = memo.links.get(key)
    if remembered is not None and remembered[0] is fresh and remembered[1:3] == (rate_age_s, trip_age_s):
        return remembered[3]
    trust = min(confidence(link.rate, rate_age_s, settings.series), confidence(link.trip, trip_age_s, settings.series))
    told = replace(fresh, confidence=trust, age_s=max(rate_age_s, trip_age_s))
    memo.links[key] = (fresh, rate_age_s, trip_age_s, told)
    return told
