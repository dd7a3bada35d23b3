"""When the orchestrator acts: targets, limits, thresholds, cooldown and hysteresis of one deployment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QosTargets:
    """What users of a deployment were promised; 0 where nothing was. Milliseconds are 95th percentiles.

    `ttft_ms` is the time to the first token, `tpot_ms` that of each later one, `tokens_per_s` what all sessions of one
    chain get together.
    """

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """How many chains a deployment has: its plan counts as one. And `standbys`: nodes that keep copies of the KV of each stage."""

    min: int = 1
    max: int = 1
    standbys: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Sessions that gateways let in, all together, and requests that may wait before there is too much demand.

    No limit of sessions where `max_sessions` is 0.
    """

    max_sessions: int = 0
    queue: int = 0


@dataclass(frozen=True, slots=True)
class Distrust:
    """Nodes and sites that a deployment never trusts, whatever they say of themselves."""

    nodes: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """All thresholds of the Adaptive Orchestrator. Derivations stand with the values."""

    qos: QosTargets = QosTargets()
    replicas: ReplicaLimits = ReplicaLimits()
    admission: Admission = Admission()
    distrust: Distrust = Distrust()
    # The first plan waits for this many nodes, so that it is not made for the one node that happens to be first.
    expected_nodes: int = 1
    # Five report periods: estimates (median of three reports) have settled after a change before the next one.
    cooldown_s: float = 5.0
    # Every change within `calm_s` multiplies the cooldown by this, up to `longest_cooldown_s`: a world that swings with
    # a period of a few cooldowns is met with fewer and fewer changes. 1.0 switches that off.
    cooldown_growth: float = 2.0
    calm_s: float = 60.0
    longest_cooldown_s: float = 40.0
    # One row of activations of a small model (2.3 KB) takes 9 ms at this rate: as long as all of its compute.
    min_link_bytes_per_s: float = 250_000.0
    # Half of what the plan was made for: beyond the swing of a healthy link, which probes see as 10 to 20 %.
    link_drop_share: float = 0.5
    # Twice the time per block the plan was made for: another tenant or a throttled core, not jitter.
    slow_node_factor: float = 2.0
    # Queues double their wait from 80 % to 90 % of use: beyond it, tokens wait for each other more than they compute.
    busy_share: float = 0.9
    # A change must pay for itself within this time: about the length of one long answer (1,000 tokens at 30 a second).
    horizon_s: float = 30.0
    # The gain within the horizon must exceed the cost of the change by this share: estimates of either are off by a
    # quarter or so. Something that is known to have got worse is acted on with little more than a break-even.
    margin: float = 0.5
    triggered_margin: float = 0.1
    # Gains below the noise of the measurements are none: times wander by 5 to 10 % on a shared machine.
    min_gain_share: float = 0.10
    triggered_min_gain_share: float = 0.05
    # Where nothing has got worse, another plan must stay the better one for this long: three reports, so that a link that
    # recovers is not taken by its first good sample.
    steady_s: float = 3.0
    # Trouble that comes and goes is met as one who may rent or buy meets a winter of unknown length: a change is made once
    # what the trouble has cost so far reaches what the change and the way back would. That is never worse than twice the
    # best that hindsight could do. What trouble has cost is forgotten with this time constant once it is over: bursts that
    # come back sooner are one trouble.
    trouble_memory_s: float = 10.0
    # A link that a plan would newly use must be known at least so well; below it, samples disagree or are old.
    min_link_confidence: float = 0.3
    # Forecasts that have been right less often than this count for nothing: they would be wrong every third time.
    min_forecast_confidence: float = 0.6
    # Loading and warming up stages and one round of messages: what a switch needs before the link breaks, without KV.
    switch_lead_s: float = 3.0
    # At most so many changes, so much pause of all sessions, and so many bytes of KV in any `budget_period_s`; 0 for no
    # such limit. What cannot wait (a lost node, a broken limit) counts, and is not held back.
    budget_changes: int = 0
    budget_pause_ms: float = 0.0
    budget_bytes: float = 0.0
    budget_period_s: float = 600.0
    # Demand above what the chains carry must last this long before a chain is added or sessions are limited.
    demand_s: float = 3.0
    # A chain is dropped, and a limit lifted, once demand has been below what would be left for this long, by this share.
    relief_s: float = 30.0
    relief_share: float = 0.2
    # What every change costs, sessions or not: loading and warming up stages takes a fraction of a second from nodes.
    fixed_switch_ms: float = 200.0
    # The pause that each session sees: copying its last page over, and one round of messages.
    pause_ms_per_session: float = 20.0
    # Traffic that an idle chain is judged by: one reader's pace, so that a bad plan is left before the next request.
    assumed_tokens_per_s: float = 10.0
    # Rate at which KV is thought to move over a link that nobody has measured (100 Mbit/s).
    default_link_bytes_per_s: float = 12.5e6
    # A plan that could not be carried out is tried again after this, doubling up to the longest; at once where the set
    # of live nodes has changed.
    retry_s: float = 2.0
    longest_retry_s: float = 30.0
