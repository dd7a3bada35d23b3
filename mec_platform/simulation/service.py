"""One deployment at work: requests wait, are prefilled, and their tokens flow as a fluid through the chain of the plan.

Between two changes of the world or of the batch every session gets tokens at one rate, 1/TPOT, where TPOT is what the cost
model says of the *true* world at the present batch. So a token is no event, and an hour of a thousand nodes is affordable;
a link whose round trip is 30 s stalls tokens just as it would. While a prompt is prefilled, it and the decode steps each
get half of the chain's compute (chunks of prompts and steps take turns); prompts are prefilled one after the other.

Sessions go in step, as the cost model has it, unless members of the chain share a machine whose cores are counted: there
they queue for those (`machines`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from mec_platform.control_plane.split_revision.cost_model import PlanCost, plan_cost
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import GatewayCapacity, Snapshot
from mec_platform.domain.split_plan import SplitPlan
from mec_platform.scenario.scenario import DeploymentSpec
from mec_platform.simulation.machines import CrowdedToken, Work, crowded_token, shared_token_s
from mec_platform.simulation.requests import Request, Served
from mec_platform.simulation.world import DEFAULT_LINK, World

CONTEXT_STEP_S = 1.0
"""Contexts grow with every token; what they cost is looked at this often."""

_DONE = 1e-9


@dataclass(slots=True)
class Session:
    """A request that is served. `left` is the share of its prefill that is left, then the tokens that are."""

    request: Request
    prefilling: bool = True
    left: float = 1.0
    first_token_s: float | None = None
    stalled_s: float = 0.0

    @property
    def positions(self) -> float:
        """KV positions it holds."""
        if self.prefilling:
            return self.request.prompt_tokens * (1 - self.left)
        return self.request.prompt_tokens + self.request.answer_tokens - self.left


@dataclass(frozen=True, slots=True)
class TokenFlow:
    """`tokens` tokens that came between two times, each `tpot_s` after the one before it, in `sessions` sessions."""

    start_s: float
    stop_s: float
    tpot_s: float
    tokens: float
    sessions: int


@dataclass(slots=True)
class Service:
    """State of one deployment's data plane. The engine calls `advance`, then changes it, then `refresh`."""

    world: World
    deployment: DeploymentSpec
    settings: PlanSettings
    now_s: float = 0.0
    plan: SplitPlan | None = None
    paused: bool = False
    session_limit: int | None = None
    waiting: deque[Request] = field(default_factory=deque)
    sessions: list[Session] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    flows: list[TokenFlow] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=dict)
    tokens: float = 0.0
    asked: int = 0
    token_s: Mapping[str, float] = field(default_factory=dict)  # by gateway: seconds per token, inf where none flow
    prefill_s: float = inf  # of the prompt that is prefilled now, from its start
    busy: Mapping[str, float] = field(default_factory=dict)  # by node: share of its compute in use

    def arrive(self, request: Request) -> None:
        """A request comes in; it waits until it is admitted."""
        self.waiting.append(request)

    def advance(self, until_s: float) -> None:
        """Lets time pass at the present rates."""
        spent = until_s - self.now_s
        if spent <= 0:
            return
        prefilled = False
        for session in self.sessions:
            if session.prefilling:
                if not prefilled and self.prefill_s < inf:
                    session.left -= spent / self.prefill_s
                prefilled = True
                continue
            token_s = self.token_s.get(session.request.gateway, inf)
            if token_s == inf:
                session.stalled_s += spent
                continue
            if session.stalled_s:
                # The token that was on its way when all stood still is the one that waited.
                self._flowed(TokenFlow(self.now_s - session.stalled_s, self.now_s, session.stalled_s + token_s, 1.0, 1))
                session.left -= min(1.0, session.left)
                session.stalled_s = 0.0
            count = min(spent / token_s, max(session.left, 0.0))
            session.left -= spent / token_s
            self._flowed(TokenFlow(self.now_s, until_s, token_s, count, 1))
        for node, share in self.busy.items():
            self.busy_s[node] = self.busy_s.get(node, 0.0) + share * spent
        self.now_s = until_s

    def refresh(self, taken: Mapping[str, float]) -> float:
        """Ends what is done, admits what waits, and looks at the world anew; returns when it must be called again."""
        self._settle()
        self._ask_again()
        most = self.deployment.max_sessions
        most = most if self.session_limit is None else min(most, self.session_limit)
        while self.waiting and self.plan is not None and len(self.sessions) < most:
            self.sessions.append(Session(self.waiting.popleft()))
        self.token_s, self.prefill_s, self.busy = {}, inf, {}
        if not self.sessions or self.plan is None:
            return inf
        changes = min(
            (self.world.next_link_change_s(a, b, self.now_s) for a, b in self._links_in_use()),
            default=inf,
        )
        again = min(changes, self.now_s + CONTEXT_STEP_S)
        if self.paused or not all(self.world.member(name, self.now_s).alive for name in self.plan.nodes):
            return inf if self.paused else again
        self._set_rates(taken)
        return min(again, self._next_end_s())

    def drop(self) -> None:
        """The chain is taken down: its sessions end unfinished, requests go on waiting."""
        self.end()
        self.served += [Served(session.request, session.first_token_s) for session in self.sessions]
        self.sessions.clear()
        self.plan = None

    def end(self) -> None:
        """The run is over: tokens that were still waited for have taken that long at least."""
        for session in self.sessions:
            if session.stalled_s:
                self._flowed(TokenFlow(self.now_s - session.stalled_s, self.now_s, session.stalled_s, 1.0, 1))

    def gateway_loads(self) -> tuple[GatewayCapacity, ...]:
        """What each gateway is doing."""
        loads = []
        for name in self.world.gateways_of(self.deployment):
            mine = [session for session in self.sessions if session.request.gateway == name]
            token_s = self.token_s.get(name, inf)
            decoding = sum(not session.prefilling for session in mine)
            loads.append(
                GatewayCapacity(
                    name,
                    "",
                    sessions=len(mine),
                    context_positions=int(sum(session.positions for session in mine)),
                    tokens_per_s=0.0 if token_s == inf else decoding / token_s,
                    site=self.world.gateway_specs[name].site,
                    queued=sum(request.gateway == name for request in self.waiting),
                    token_s=token_s if decoding and token_s < inf else 0.0,
                )
            )
        return tuple(loads)

    def truth(self, taken: Mapping[str, float] | None = None) -> Snapshot:
        """The true world as far as the plan in force reaches."""
        names = () if self.plan is None else self.plan.nodes
        return self.world.snapshot(self.deployment, self.now_s, names, self.gateway_loads(), self.plan, taken)

    def _flowed(self, flow: TokenFlow) -> None:
        if flow.tokens > 0:
            self.flows.append(flow)
            self.tokens += flow.tokens

    def _settle(self) -> None:
        """Prompts that are through give their first token; answers that are complete are over."""
        for session in list(self.sessions):
            if session.left > _DONE:
                continue
            if session.prefilling:
                session.prefilling, session.first_token_s = False, self.now_s
                session.left = session.request.answer_tokens - 1.0
            if session.left <= _DONE:
                self.served.append(Served(session.request, session.first_token_s, self.now_s))
                self.sessions.remove(session)

    def _ask_again(self) -> None:
        """Where answers are asked for without pause, the next ones."""
        demand = self.deployment.demand
        if not 0 <= self.now_s < self.world.scenario.duration_s:
            return
        while len(self.sessions) + len(self.waiting) < demand.streams:
            gateways = self.world.gateways_of(self.deployment)
            gateway = gateways[self.asked % len(gateways)]
            self.waiting.append(Request(self.asked, self.now_s, gateway, demand.prompt_tokens, demand.answer_tokens))
            self.asked += 1

    def _links_in_use(self) -> list[tuple[str, str]]:
        assert self.plan is not None
        nodes = self.plan.nodes
        links = list(pairwise(nodes))
        for gateway in {session.request.gateway for session in self.sessions}:
            links += [(gateway, nodes[0]), (nodes[-1], gateway)]
        return links

    def _set_rates(self, taken: Mapping[str, float]) -> None:
        assert self.plan is not None
        decoding = [session for session in self.sessions if not session.prefilling]
        first = next((session for session in self.sessions if session.prefilling), None)
        both = 2.0 if decoding and first is not None else 1.0
        rows, positions = max(len(decoding), 1), int(sum(session.positions for session in decoding))
        seen = self.truth(taken)
        busy: dict[str, float] = dict.fromkeys(self.plan.nodes, 0.0)
        rates: dict[str, float] = {}
        for gateway in sorted({session.request.gateway for session in decoding}):
            load = GatewayCapacity(gateway, "", sessions=rows, context_positions=positions, tokens_per_s=0.0)
            mine = sum(session.request.gateway == gateway for session in decoding) / len(decoding)
            if self._is_crowded(gateway):
                token = self._crowded_token(gateway, rows, positions, seen)
                rates[gateway] = token.token_s + (both - 1) * sum(token.stage_s)
                for stage, own_s in zip(self.plan.stages, token.stage_s, strict=True):
                    busy[stage.node] += own_s * rows * mine / rates[gateway]
                continue
            cost = plan_cost(self.plan.stages, _with_gateway(seen, load), self.settings)
            assert cost is not None
            rates[gateway] = (cost.compute_ms * both + sum(cost.hop_ms)) / 1e3
            _add_busy(busy, self.plan, cost, mine / (rates[gateway] * 1e3))
        self.token_s = rates
        if first is not None:
            compute_s, hops_s = prefill_times(self.plan, seen, first.request, self.world)
            self.prefill_s = max(
                shared_token_s(sum(compute_s) * both + hops_s, self._prefill_work(compute_s), sessions=1), 1e-6
            )
            for stage, own_s in zip(self.plan.stages, compute_s, strict=True):
                busy[stage.node] += own_s / self.prefill_s
        self.busy = {node: min(share, 1.0) for node, share in busy.items()}

    def _is_crowded(self, gateway: str) -> bool:
        """Whether a member of the chain is on a machine whose cores can become scarce."""
        assert self.plan is not None
        return any(self.world.seats[name].machine in self.world.machines for name in (gateway, *self.plan.nodes))

    def _crowded_token(self, gateway: str, sessions: int, positions: int, seen: Snapshot) -> CrowdedToken:
        assert self.plan is not None
        stages = self.plan.stages

        def cost_of(rows: int) -> PlanCost:
            load = GatewayCapacity(gateway, "", rows, positions * rows // sessions, 0.0)
            cost = plan_cost(stages, _with_gateway(seen, load), self.settings)
            assert cost is not None
            return cost

        return crowded_token(stages, gateway, sessions, cost_of, self.world.seats, self.world.machines)

    def _prefill_work(self, compute_s: Sequence[float]) -> list[Work]:
        """Of machines whose cores are counted: what a prompt needs of them, and who else does."""
        assert self.plan is not None
        needed: dict[str, float] = {}
        for stage, own_s in zip(self.plan.stages, compute_s, strict=True):
            seat = self.world.seats[stage.node]
            if seat.machine in self.world.machines:
                needed[seat.machine] = needed.get(seat.machine, 0.0) + own_s
        machines = self.world.machines
        return [Work(machines[name].cores, core_s, machines[name].others) for name, core_s in needed.items()]

    def _next_end_s(self) -> float:
        ends, prefilled = [], False
        for session in self.sessions:
            if session.prefilling:
                if not prefilled:
                    ends.append(self.now_s + session.left * self.prefill_s)
                prefilled = True
            else:
                left = session.left - (1.0 if session.stalled_s else 0.0)
                ends.append(self.now_s + max(left, 0.0) * self.token_s[session.request.gateway])
        # Never in the past or at once: rounding must not keep a session that has nothing left.
        return max(min(ends, default=inf), self.now_s + 1e-7)


def prefill_times(plan: SplitPlan, seen: Snapshot, request: Request, world: World) -> tuple[list[float], float]:
    """Seconds of a prompt on each stage, and on all hops together: its rows cross every one of them."""
    assert seen.model is not None
    compute_s = []
    for stage in plan.stages:
        node = seen.node(stage.node)
        assert node is not None
        compute_s.append(len(stage.layers) * request.prompt_tokens * node.prefill_block_time_s_per_row)
    last = seen.node(plan.nodes[-1])
    assert last is not None
    compute_s[-1] += last.head_time_s
    hops_s = 0.0
    path = (request.gateway, *plan.nodes, request.gateway)
    for position, (source, target) in enumerate(pairwise(path)):
        link = world.link(source, target, seen.now_s) or DEFAULT_LINK
        between = 0 < position < len(path) - 2
        size = request.prompt_tokens * (seen.model.hidden_bytes_per_row if between else 4)
        hops_s += link.round_trip_s / 2 + size / max(link.bytes_per_s, 1.0)
    return compute_s, hops_s


def _with_gateway(seen: Snapshot, load: GatewayCapacity) -> Snapshot:
    return Snapshot(
        now_s=seen.now_s,
        model=seen.model,
        nodes=seen.nodes,
        gateways=(load,),
        links=seen.links,
        plan=seen.plan,
        lost_nodes=seen.lost_nodes,
    )


def _add_busy(busy: dict[str, float], plan: SplitPlan, cost: PlanCost, steps_per_ms: float) -> None:
    for stage, own_ms in zip(plan.stages, cost.stage_ms, strict=True):
        busy[stage.node] += own_ms * steps_per_ms
