"""What makes a change worth considering: the world when the plan was committed (`Baseline`) against the snapshot now.

Counterpart: `policy` judges whether acting on a finding pays; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mec_platform.control_plane.orchestrator.decisions import PlanOption, Trigger
from mec_platform.control_plane.orchestrator.links import is_believed
from mec_platform.control_plane.orchestrator.settings import PolicySettings, QosTargets
from mec_platform.control_plane.orchestrator.state import Baseline, PolicyState
from mec_platform.domain.capacity import LinkCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan

Links = Mapping[tuple[str, str], LinkCapacity]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that got worse or is new, with numbers for people."""

    trigger: Trigger
    text: str


def take_baseline(snapshot: Snapshot, plan: SplitPlan, links: Links, earlier: Baseline | None) -> Baseline:
    """The baseline of `plan`; what an earlier one of the same epoch holds stays, what was unmeasured then is added."""
    same = earlier is not None and earlier.epoch == plan.epoch
    rates = {(source, target): rate for source, target, rate in earlier.links} if earlier and same else {}
    times = dict(earlier.block_times) if earlier and same else {}
    new_rates = {hop: link.bytes_per_s for hop, link in links.items() if hop not in rates}
    wanted = set(plan.nodes) - times.keys()
    new_times = {node.name: node.block_time_s for node in snapshot.nodes if node.name in wanted} if wanted else {}
    if earlier is not None and same and not new_rates and not new_times:
        return earlier
    every = tuple((source, target, rate) for (source, target), rate in (rates | new_rates).items())
    return Baseline(plan.epoch, every, times | new_times)


def find_all(
    snapshot: Snapshot,
    plan: SplitPlan,
    links: Links,
    state: PolicyState,
    settings: PolicySettings,
    current: PlanOption,
    lead_s: float,
) -> list[Finding]:
    """Everything that speaks for a change, the most urgent first. `lead_s` is how long a change takes."""
    assert state.baseline is not None
    findings = [
        *_forecasts(links, settings, lead_s),
        *_degraded_links(links, state.baseline, settings),
        *_slo_risks(snapshot, settings, current),
        *_nodes(snapshot, plan, state.baseline, settings),
    ]
    if state.policy_change:
        findings.append(Finding(Trigger.POLICY_CHANGED, f"the policy changed ({state.policy_change})"))
    joined = [node.name for node in snapshot.nodes if node.name not in state.known_nodes]
    if joined:
        more = f" and {len(joined) - 3} more" if len(joined) > 3 else ""
        findings.append(Finding(Trigger.NODE_JOINED, f"{', '.join(joined[:3])}{more} joined"))
    return findings


def _forecasts(links: Links, settings: PolicySettings, lead_s: float) -> Iterator[Finding]:
    """Links in use that are expected to get worse before a change that begins at the next tick could be over."""
    for (source, target), link in links.items():
        forecast = link.forecast
        if forecast is None or not is_believed(forecast, settings):
            continue
        sure = f"({forecast.confidence:.0%} sure: {forecast.reason})"
        worse = forecast.bytes_per_s < max(settings.link_drop_share * link.bytes_per_s, settings.min_link_bytes_per_s)
        if forecast.breaks_in_s is not None and forecast.breaks_in_s <= lead_s:
            text = f"link {source} -> {target} is expected to break in {forecast.breaks_in_s:.1f} s {sure}"
            yield Finding(Trigger.LINK_FORECAST, text)
        elif worse and forecast.after_s <= lead_s and forecast.bytes_per_s < link.bytes_per_s:
            text = (
                f"link {source} -> {target} is expected to fall from {_rate(link.bytes_per_s)} to "
                f"{_rate(forecast.bytes_per_s)} in {forecast.after_s:.1f} s {sure}"
            )
            yield Finding(Trigger.LINK_FORECAST, text)


def _degraded_links(links: Links, baseline: Baseline, settings: PolicySettings) -> Iterator[Finding]:
    """Links in use that carry much less than when the plan was made, or less than is useful."""
    rates = {(source, target): rate for source, target, rate in baseline.links}
    for (source, target), link in links.items():
        now, then = link.bytes_per_s, rates.get((source, target))
        if then is not None and now < settings.link_drop_share * then:
            text = f"link {source} -> {target} fell from {_rate(then)} to {_rate(now)}"
            yield Finding(Trigger.LINK_DEGRADED, text)
        elif then is not None and now < settings.min_link_bytes_per_s:
            text = f"link {source} -> {target} carries {_rate(now)}, below {_rate(settings.min_link_bytes_per_s)}"
            yield Finding(Trigger.LINK_DEGRADED, text)


def _slo_risks(snapshot: Snapshot, settings: PolicySettings, current: PlanOption) -> Iterator[Finding]:
    """Targets that gateways miss, or that the plan is expected to miss."""
    qos = settings.qos
    slowest = max(snapshot.gateways, key=lambda gateway: gateway.token_s, default=None)
    first = max(snapshot.gateways, key=lambda gateway: gateway.first_token_s, default=None)
    if qos.tpot_ms and slowest is not None and slowest.token_s * 1e3 > qos.tpot_ms:
        text = f"tokens at {slowest.name} take {slowest.token_s * 1e3:.0f} ms, {qos.tpot_ms:g} ms are the target"
        yield Finding(Trigger.SLO_AT_RISK, text)
    elif qos.tpot_ms and current.latency_ms > qos.tpot_ms:
        text = f"the plan is expected to take {current.latency_ms:.1f} ms per token, {qos.tpot_ms:g} ms are the target"
        yield Finding(Trigger.SLO_AT_RISK, text)
    if qos.ttft_ms and first is not None and first.first_token_s * 1e3 > qos.ttft_ms:
        text = (
            f"first tokens at {first.name} take {first.first_token_s * 1e3:.0f} ms, {qos.ttft_ms:g} ms are the target"
        )
        yield Finding(Trigger.SLO_AT_RISK, text)
    if 0 < current.tokens_per_s < qos.tokens_per_s:
        text = f"the plan is expected to carry {current.tokens_per_s:.0f} tokens/s, {qos.tokens_per_s:g} are the target"
        yield Finding(Trigger.SLO_AT_RISK, text)
    queued = sum(gateway.queued for gateway in snapshot.gateways)
    if queued > settings.admission.queue and has_targets(settings):
        text = f"{queued} request{'s wait' if queued > 1 else ' waits'}, {settings.admission.queue} may"
        yield Finding(Trigger.SLO_AT_RISK, text)


def has_targets(settings: PolicySettings) -> bool:
    """Whether the policy promises anything that demand can put at risk."""
    return settings.qos != QosTargets() or settings.replicas.max > 1


def _nodes(snapshot: Snapshot, plan: SplitPlan, baseline: Baseline, settings: PolicySettings) -> Iterator[Finding]:
    """Nodes of the plan that became slow or have hardly any time left, in chain order; slow ones first."""
    names = set(plan.nodes)
    nodes = {node.name: node for node in snapshot.nodes if node.name in names}
    for name in plan.nodes:
        node, then = nodes.get(name), baseline.block_times.get(name)
        if node is not None and then and node.block_time_s >= settings.slow_node_factor * then:
            text = f"node {name} slowed from {then * 1e3:.3g} ms to {node.block_time_s * 1e3:.3g} ms per block"
            yield Finding(Trigger.NODE_SLOW, text)
    for name in plan.nodes:
        node = nodes.get(name)
        if node is not None and node.busy_share >= settings.busy_share > 0:
            yield Finding(Trigger.NODE_BUSY, f"node {name} is {node.busy_share:.0%} busy")


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.3g} MB/s"
