"""What runs on committed plans at a gateway: the plan in use of every chain, and waiting for one that works."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from mec_apps.split_inference.gateway.active_plan import ActivePlan, PlanHolds
from mec_apps.split_inference.gateway.chain_choice import ChainLoad, choose_chain
from mec_apps.split_inference.generation import NoPlan

if TYPE_CHECKING:
    from mec_apps.split_inference.gateway.sessions import Session

FIRST_PLAN_TIMEOUT_S = 10.0
"""How long a request waits for a plan when there is none."""

RECOVERY_TIMEOUT_S = 30.0
"""How long a request waits for a usable plan after it lost a stage: detection, preparation and commit take about one."""

SAME_PLAN_RETRY_S = 1.0
"""After this long without a newer plan, a plan whose nodes all answer is tried again: the break was a short one."""

OWN_CHAIN_FIRST_S = 1.0
"""A chain whose KV stands by elsewhere has a new plan within this time, or does not save any."""

POLL_LINKS_S = 0.1
"""How often a request that waits for a plan looks whether links are back."""

RECENT_TOKENS = 64
"""Tokens of a chain that its pace is taken from: some seconds' worth."""

SLOWER_THAN_USUAL = 4.0
"""A token that takes this many times what tokens of its chain take makes whoever waits ask whether the nodes live."""

SHORTEST_PATIENCE_S = 0.1
LONGEST_PATIENCE_S = 0.4
"""Prompts and replays, which take long, are not waited for longer: to ask costs next to nothing."""

MAX_RECOVERIES = 8
"""Recoveries in a row before a request gives up."""


class PlanUser:
    """`live` are the sessions that a change of plan has to move; requests that keep nothing on nodes are not in it.

    `chains` are the plans in use, by the number of their chain.
    """

    def __init__(self) -> None:
        self.live: dict[int, Session] = {}
        self.chains: dict[int, ActivePlan] = {}
        self.holds = PlanHolds()
        self._paces: dict[int, deque[float]] = {}
        self._sent: dict[int, tuple[ActivePlan, float]] = {}
        self._plan_changed = asyncio.Event()

    @property
    def active(self) -> ActivePlan | None:
        """The plan that a request which comes now starts on."""
        return self.choose(self.chains.values())

    @property
    def nodes_in_use(self) -> frozenset[str]:
        """Nodes of every plan that a request, or the next one, runs on, and those that stand by for them."""
        plans = [*self.chains.values(), *self.plans_under_work()]
        return frozenset(node for active in plans for node in active.plan.members)

    def plans_under_work(self) -> Iterable[ActivePlan]:
        """The plan of every request under way."""
        return [session.active for session in self.live.values()]

    def requests_on(self, chain: int) -> int:
        """Requests that run on a chain or are on their way to it."""
        return sum(session.chain == chain for session in self.live.values())

    def leave_plan(self, epoch: int, reason: str) -> None:
        """Requests under way on the plan of that epoch lose their stages, whose nodes are told to forget them: it is held."""
        raise NotImplementedError

    def use_plan(self, active: ActivePlan) -> None:
        """New requests of its chain start on this plan from now on; those that wait for a newer one wake up."""
        known = self.chains.get(active.plan.chain)
        if known is None or known.plan.epoch != active.plan.epoch:
            self._paces[active.plan.chain] = deque(maxlen=RECENT_TOKENS)
        self.chains[active.plan.chain] = active
        self._tell_waiting()

    def end_chain(self, chain: int) -> None:
        """No request starts on this chain any more; those that wait for a plan of it look at the others."""
        self.chains.pop(chain, None)
        self._paces.pop(chain, None)
        self._tell_waiting()

    def choose(self, plans: Iterable[ActivePlan]) -> ActivePlan | None:
        """The plan of these whose chain has the shortest wait; None where there are none."""
        by_chain = {active.plan.chain: active for active in plans}
        if len(by_chain) < 2:
            return next(iter(by_chain.values()), None)
        loads = [
            ChainLoad(chain, self.requests_on(chain), min(self._paces.get(chain, ()), default=0.0), active.usable)
            for chain, active in by_chain.items()
        ]
        chosen = choose_chain(loads)
        return None if chosen is None else by_chain[chosen]

    def note_pace(self, active: ActivePlan, token_s: float) -> None:
        """Keeps what one token took on a plan."""
        pace = self._paces.get(active.plan.chain)
        if pace is not None:
            pace.append(token_s)

    def note_sent(self, request: int, active: ActivePlan) -> None:
        """Something is under way on a plan that will be answered, until `note_settled`."""
        self._sent[request] = active, asyncio.get_running_loop().time()

    def note_settled(self, request: int) -> None:
        """Nothing of this request is waited for any more."""
        self._sent.pop(request, None)

    def late_plans(self) -> list[ActivePlan]:
        """Plans that an answer has been waited for on for clearly longer than usual."""
        now_s = asyncio.get_running_loop().time()
        return [active for active, sent_s in self._sent.values() if now_s - sent_s > self.patience_s(active)]

    def patience_s(self, active: ActivePlan) -> float:
        """After how long an answer on a plan is late."""
        usual_s = max(self._paces.get(active.plan.chain, ()), default=LONGEST_PATIENCE_S)
        return min(max(SLOWER_THAN_USUAL * usual_s, SHORTEST_PATIENCE_S), LONGEST_PATIENCE_S)

    async def first_plan(self) -> ActivePlan:
        """The plan to start on. Raises NoPlan."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + FIRST_PLAN_TIMEOUT_S
        while (active := self.active) is None:
            try:
                await asyncio.wait_for(self._plan_changed.wait(), max(0.0, give_up - loop.time()))
            except TimeoutError as error:
                raise NoPlan(
                    "no plan to run on: too few edge nodes have joined, or the platform is not reachable"
                ) from error
        return active

    async def next_plan(self, lost: ActivePlan, tried: Collection[int], timeout_s: float) -> ActivePlan:
        """The plan to go on with after `lost`: another one of its chain (a newer one, or after an abort an older), or that
        of another chain whose nodes all answer and whose epoch is not in `tried`; or after a while `lost` itself, where all
        its nodes answer again. Where nodes stand by, its own chain has a head start: only there are copies of the KV.

        Raises:
            TimeoutError: none came.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            own = self.chains.get(lost.plan.chain)
            if own is not None and own.plan.epoch != lost.plan.epoch:
                return own
            waited = loop.time() - started
            others = [a for a in self.chains.values() if a is not own and a.plan.epoch not in tried and a.usable]
            if lost.plan.standbys and waited < OWN_CHAIN_FIRST_S:
                others = []
            if others and (other := self.choose(others)) is not None:
                return other
            if own is not None and waited >= SAME_PLAN_RETRY_S and lost.usable:
                return lost
            if waited >= timeout_s:
                raise TimeoutError
            try:
                await asyncio.wait_for(self._plan_changed.wait(), POLL_LINKS_S)
            except TimeoutError:
                continue

    def _tell_waiting(self) -> None:
        self._plan_changed.set()
        self._plan_changed = asyncio.Event()
