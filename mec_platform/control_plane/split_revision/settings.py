"""What Split Revision may be told: the weights of the objective and the limits that a plan must keep."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, get_args

from mec_platform.domain.capacity import LinkCapacity

Objective = Literal["weighted", "latency", "throughput"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Weights, in milliseconds per token, and limits. What is minimised stands in `cost_model`.

    Raises:
        ValueError: a weight or a limit is negative.
    """

    # One millisecond of latency costs one millisecond: the other weights are read against it.
    alpha: float = 1.0
    # Imbalance counts the milliseconds by which the busiest resource exceeds a fair share of the work. It costs a
    # saturated chain that much throughput and a single stream nothing; half is the middle between the two loads.
    beta: float = 0.5
    # A millisecond of the busiest resource, whatever a fair share is: for chains that must carry many sessions.
    throughput: float = 0.0
    # What it is worth to keep all blocks on trusted nodes: less than one hop over a mobile link (10 ms and more), more
    # than one over a wired link (0.1 to 2 ms), so that privacy picks between near equals and gives way to a real gain.
    gamma_ms: float = 4.0
    # Tokens are recovered from activations with 59 % success behind two blocks and 35 % behind eight (arXiv
    # 2602.16760): two blocks are the least that removes the plain text, the exposure term pulls further.
    trusted_first_blocks: int = 2
    # The last stage makes the tokens, so it is on a trusted node whatever is said here; more blocks keep what is all but
    # the answer from others.
    trusted_last_blocks: int = 1
    # Positions of KV, over all sessions, that every stage must have room for at least: four chats of 512 tokens.
    kv_tokens_reserved: int = 2048
    # What each live session is expected to add to its context before the plan is looked at again: half a long answer.
    kv_growth_tokens: int = 256
    # A link that nobody has measured yet: 100 Mbit/s and 2 ms, a modest wired or good radio link, so that an unmeasured
    # link is neither sought nor shunned.
    default_link: LinkCapacity = field(
        default_factory=lambda: LinkCapacity(source="*", target="*", bytes_per_s=12.5e6, round_trip_s=0.002)
    )
    # A token id, its position, session and epoch in one frame between gateway and chain.
    token_frame_bytes: int = 64
    # A link that is busy for longer than this with one step of all sessions is not used: 1000 / (steps per second
    # that the chain must reach). Infinite: every link may be used.
    longest_transmission_ms: float = inf
    # A link that is expected to break within this time is shunned: about the length of one long answer.
    forecast_horizon_s: float = 30.0
    # What a hop over a link costs that will break for certain: a handover or a lost signal stops tokens for about a
    # second, and every token of that second waits.
    broken_link_ms: float = 1000.0
    # What it is worth that a stage does not fail together with another chain of its deployment: as much as a trusted node.
    shared_group_ms: float = 4.0
    # A change is spread over this many tokens: 1,000 is a long answer. 0: changes are free.
    switch_horizon_tokens: int = 0
    # What every change costs, sessions or not, and the pause that each session sees.
    switch_fixed_ms: float = 200.0
    switch_pause_ms_per_session: float = 20.0
    # Of more nodes than this, those that a bound shows to be the most promising are looked at closely.
    dense_nodes: int = 64
    # How much the search may do before it answers with the best plan so far and how far that may be off: steps of its
    # innermost loop, of which a current core does about 0.5 to 1 thousand million a second.
    search_steps: int = 12_000_000

    def __post_init__(self) -> None:
        limits = ("alpha", "beta", "throughput", "gamma_ms", "trusted_first_blocks", "trusted_last_blocks")
        more = ("kv_tokens_reserved", "kv_growth_tokens", "longest_transmission_ms", "forecast_horizon_s")
        prices = ("broken_link_ms", "shared_group_ms", "switch_horizon_tokens", "switch_fixed_ms")
        names = (*limits, *more, *prices, "switch_pause_ms_per_session", "token_frame_bytes", "search_steps")
        if negative := [name for name in names if not getattr(self, name) >= 0]:
            raise ValueError(f"must not be negative: {', '.join(negative)}")
        if not 1 <= self.dense_nodes <= 64:
            raise ValueError(f"dense_nodes must be from 1 to 64, not {self.dense_nodes}")

    def for_objective(self, objective: Objective) -> PlanSettings:
        """These limits and prices with the weights of an objective; "weighted" are the weights at hand.

        "latency" is the time of one token and nothing else of speed; "throughput" the busiest resource, with a hundredth
        of the latency, so that of chains which carry as much the quickest is taken. Exposure keeps its price.
        """
        if objective == "latency":
            return replace(self, alpha=1.0, beta=0.0, throughput=0.0)
        if objective == "throughput":
            return replace(self, alpha=0.01, beta=0.0, throughput=1.0)
        return self
