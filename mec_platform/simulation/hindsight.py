"""What could have been done by someone who knew the future: the best single plan of a run, and the best sequence of plans.

Both look at the true world through the same eyes: for each candidate plan and each moment, how long an answer that begins
then would take on it. Candidates are what Split Revision finds for the true world at many moments, with and without each
node that it likes, and the even split.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import ceil, inf

from mec_platform.control_plane.control_settings import ControlSettings
from mec_platform.control_plane.split_revision.checker import check_stages
from mec_platform.control_plane.split_revision.cost_model import plan_cost
from mec_platform.control_plane.split_revision.search import FoundPlan, best_plan
from mec_platform.domain.capacity import GatewayCapacity, Snapshot
from mec_platform.domain.layers import even_ranges
from mec_platform.domain.split_plan import SplitPlan, Stage
from mec_platform.scenario.scenario import DeploymentSpec
from mec_platform.simulation.reconfiguration import LOAD_S, ORDER_S, plan_the_change
from mec_platform.simulation.requests import Request
from mec_platform.simulation.world import DEFAULT_LINK, World

Stages = tuple[Stage, ...]

SAMPLES = 40
"""Moments of the true world that candidates are found for, besides those at which an event changes it."""

MOST_CANDIDATES = 8

STEP_S = 0.1
"""Grid on which the time of tokens is looked at; traces have about twenty values a second, which stalls outlast."""

LEAD_S = LOAD_S + 2 * ORDER_S
"""From a decision to its plan being in force, where no weights must be fetched and little KV moves."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan and how it does: `answer_s[k]` is what an answer that begins in second k takes from its first token on."""

    stages: Stages
    answer_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """Over answers that begin at any time."""
        return sum(self.answer_s) / len(self.answer_s)


def candidates(
    world: World,
    deployment: DeploymentSpec,
    settings: ControlSettings,
    requests: Sequence[Request],
    more: Iterable[Stages] = (),
) -> tuple[Candidate, ...]:
    """The most promising plans of a run, best on the whole first: those that are the best most often, and the next best."""
    found = dict.fromkeys(more)
    for seen in _moments(world, deployment):
        found |= dict.fromkeys(_plans(seen, settings))
        even = even_split(seen, settings)
        found |= {} if even is None else {even: None}
    usual = _usual(deployment, requests)
    tokens = sum(request.answer_tokens for request in usual) / len(usual)
    judged = [Candidate(stages, _answers(world, deployment, settings, stages, tokens)) for stages in found]
    judged.sort(key=lambda each: (each.mean_s, len(each.stages), [stage.node for stage in each.stages]))
    seconds = range(len(judged[0].answer_s)) if judged else ()
    favoured = Counter(min(range(len(judged)), key=lambda i: judged[i].answer_s[second]) for second in seconds)
    kept = [i for i, _ in favoured.most_common(MOST_CANDIDATES // 2)]
    kept += [i for i in range(len(judged)) if i not in kept][: MOST_CANDIDATES - len(kept)]
    return tuple(judged[i] for i in sorted(kept))


def best_schedule(
    world: World,
    deployment: DeploymentSpec,
    settings: ControlSettings,
    requests: Sequence[Request],
    plans: Sequence[Candidate],
) -> tuple[tuple[float, Stages], ...]:
    """The cheapest sequence of candidates by dynamic programming over decision times, every change at its true pause.

    The cost of a second on a plan is what answers that begin in it take; of a change, the pause of the sessions that are
    there on average. What it does not see: a session that began before a change, and queues.
    """
    steps = len(plans[0].answer_s)
    fastest_s = min(each.mean_s for each in plans)
    # Without pause as many come as end.
    per_s = len(requests) / world.scenario.duration_s if requests else deployment.demand.streams / fastest_s
    sessions = max(1, round(per_s * fastest_s))
    cost = [each.answer_s[0] * per_s for each in plans]
    before: list[list[int]] = []
    names = sorted({stage.node for plan in plans for stage in plan.stages})
    known: Snapshot | None = None
    pauses: Mapping[tuple[int, int], float] = {}
    for step in range(1, steps):
        now_s = step * world.scenario.tick_s
        seen = replace(true_snapshot(world, deployment, now_s, names), now_s=0.0)
        if seen != known:
            known, pauses = seen, _pauses(world, deployment, settings, requests, plans, sessions, now_s)
        came = [
            min(range(len(plans)), key=lambda old: (cost[old] + pauses[old, new] * sessions, old != new))
            for new in range(len(plans))
        ]
        cost = [
            cost[old] + pauses[old, new] * sessions + plans[new].answer_s[step] * per_s for new, old in enumerate(came)
        ]
        before.append(came)
    path = [min(range(len(plans)), key=cost.__getitem__)]
    for came in reversed(before):
        path.append(came[path[-1]])
    path.reverse()
    changes = [(float("-inf"), plans[path[0]].stages)]
    changes += [
        (step * world.scenario.tick_s, plans[new].stages)
        for step, (old, new) in enumerate(pairwise(path), 1)
        if old != new
    ]
    return tuple(changes)


def even_split(seen: Snapshot, settings: ControlSettings) -> Stages | None:
    """Equal shares on the fastest nodes, as many as fit and no more than there are blocks; ends on trusted ones.

    That is what one does who measures nothing but which nodes are there. None where no number of equal shares fits.
    """
    assert seen.model is not None
    trusted = sorted(node.name for node in seen.nodes if node.trusted)
    others = sorted(node.name for node in seen.nodes if not node.trusted)
    for parts in range(min(len(seen.nodes), seen.model.blocks), 0, -1):
        middle = (trusted[1:-1] + others) if len(trusted) > 1 else []
        names = [*trusted[:1], *middle[: max(parts - 2, 0)], *trusted[-1:]] if parts > 1 else trusted[:1]
        if len(names) != parts or len(set(names)) != parts:
            continue
        stages = tuple(Stage(n, r) for n, r in zip(names, even_ranges(seen.model.blocks, parts), strict=True))
        if not check_stages(SplitPlan(1, 0, seen.model.name, stages), seen, settings.planning):
            return stages
    return None


def keeps_trust(world: World, deployment: DeploymentSpec, settings: ControlSettings, stages: Stages) -> bool:
    """Whether a plan breaks no limit of trust or memory at any time of the run."""
    return not any(_broken(world, deployment, settings, stages, at_s) for at_s in (0.0, *world.change_times))


def true_snapshot(world: World, deployment: DeploymentSpec, at_s: float, names: Iterable[str]) -> Snapshot:
    """The true world at one time with one session at each gateway."""
    gateways = tuple(
        GatewayCapacity(name, "", 1, deployment.demand.prompt_tokens, 0.0, site=world.gateway_specs[name].site)
        for name in world.gateways_of(deployment)
    )
    return world.snapshot(deployment, at_s, names, gateways)


def _moments(world: World, deployment: DeploymentSpec) -> Iterator[Snapshot]:
    duration_s = world.scenario.duration_s
    times = {duration_s * index / SAMPLES for index in range(SAMPLES)} | {
        t for t in world.change_times if t < duration_s
    }
    names = world.nodes_of(deployment)
    seen: set[Snapshot] = set()
    for at_s in sorted(times):
        moment = replace(true_snapshot(world, deployment, at_s, names), now_s=0.0)
        if moment not in seen:
            seen.add(moment)
            yield moment


def _plans(seen: Snapshot, settings: ControlSettings) -> Iterator[Stages]:
    """The best plan, and the best ones without each node of it."""
    best = best_plan(seen, settings.planning)
    if not isinstance(best, FoundPlan):
        return
    yield best.plan.stages
    for name in best.plan.nodes:
        other = best_plan(seen, settings.planning, frozenset({name}))
        if isinstance(other, FoundPlan):
            yield other.plan.stages


def _answers(
    world: World, deployment: DeploymentSpec, settings: ControlSettings, stages: Stages, tokens: float
) -> tuple[float, ...]:
    """For each decision time, how long an answer takes that begins once that decision is in force."""
    duration_s, tick_s = world.scenario.duration_s, world.scenario.tick_s
    horizon_s = duration_s * 1.5 + 60.0
    steps = ceil(horizon_s / STEP_S)
    rates = _rates(world, deployment, settings, stages, steps)
    made = list(accumulate((rate * STEP_S for rate in rates), initial=0.0))
    answers = []
    for second in range(max(1, round(duration_s / tick_s))):
        start = min(round((second * tick_s + LEAD_S) / STEP_S), steps)
        end = bisect_left(made, made[start] + tokens, lo=start)
        if end > steps:
            answers.append(horizon_s)
            continue
        over = made[end] - made[start] - tokens
        answers.append((end - start) * STEP_S - (over / rates[end - 1] if rates[end - 1] else 0.0))
    return tuple(answers)


def _rates(
    world: World, deployment: DeploymentSpec, settings: ControlSettings, stages: Stages, steps: int
) -> list[float]:
    """Tokens per second of one session, step by step; 0 where a node is gone or must not be used."""
    names = [stage.node for stage in stages]
    gateways = world.gateways_of(deployment)
    shape = world.shape(deployment)
    bounds = [0.0, *world.change_times, inf]
    rates: list[float] = []
    for start_s, stop_s in pairwise(bounds):
        seen = true_snapshot(world, deployment, start_s, names)
        cost = (
            None
            if _broken(world, deployment, settings, stages, start_s)
            else plan_cost(stages, seen, settings.planning)
        )
        while len(rates) < steps and len(rates) * STEP_S < stop_s:
            at_s = len(rates) * STEP_S
            if cost is None:
                rates.append(0.0)
                continue
            hops_s = sum(_hop_s(world, a, b, shape.hidden_bytes_per_row, at_s) for a, b in pairwise(names)) + sum(
                _hop_s(world, gateway, names[0], settings.planning.token_frame_bytes, at_s)
                + _hop_s(world, names[-1], gateway, settings.planning.token_frame_bytes, at_s)
                for gateway in gateways
            ) / len(gateways)
            rates.append(1.0 / (cost.compute_ms / 1e3 + hops_s))
    return rates


def _hop_s(world: World, source: str, target: str, size: int, at_s: float) -> float:
    state = world.link(source, target, at_s) or DEFAULT_LINK
    return state.round_trip_s / 2 + size / max(state.bytes_per_s, 1.0)


def _broken(
    world: World, deployment: DeploymentSpec, settings: ControlSettings, stages: Stages, at_s: float
) -> list[str]:
    """What of trust and memory a plan breaks at a time; nodes that are gone break nothing, they only stand still."""
    seen = true_snapshot(world, deployment, at_s, [stage.node for stage in stages])
    plan = SplitPlan(1, 0, world.shape(deployment).name, stages)
    return [error for error in check_stages(plan, seen, settings.planning) if "not alive" not in error]


def _pauses(
    world: World,
    deployment: DeploymentSpec,
    settings: ControlSettings,
    requests: Sequence[Request],
    plans: Sequence[Candidate],
    sessions: int,
    now_s: float,
) -> Mapping[tuple[int, int], float]:
    """Seconds without tokens of a change from each plan to each other one at a decision time."""
    usual = _usual(deployment, requests)
    positions = round(sum(r.prompt_tokens + r.answer_tokens / 2 for r in usual) / len(usual))
    load = tuple(
        GatewayCapacity(name, "", sessions, positions * sessions, 0.0) for name in world.gateways_of(deployment)[:1]
    )
    pauses: dict[tuple[int, int], float] = {}
    for old, held in enumerate(plans):
        for new, wanted in enumerate(plans):
            if old == new:
                pauses[old, new] = 0.0
                continue
            names = sorted({stage.node for stage in (*held.stages, *wanted.stages)})
            before = SplitPlan(1, 0, world.shape(deployment).name, held.stages)
            after = SplitPlan(2, 1, world.shape(deployment).name, wanted.stages)
            truth = world.snapshot(deployment, now_s, names, load, before)
            change = plan_the_change(world, deployment, after, truth, truth, now_s, {}, settings.policy)
            pauses[old, new] = change.pause_s
    return pauses


def _usual(deployment: DeploymentSpec, requests: Sequence[Request]) -> Sequence[Request]:
    """Requests to take lengths from: those that are known, or one as the deployment's demand describes it."""
    demand = deployment.demand
    return requests or (Request(0, 0.0, "", demand.prompt_tokens, demand.answer_tokens),)
