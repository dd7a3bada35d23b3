"""What Split Revision may be told: the weights of the objective and the limits that a plan must keep."""

from __future__ import annotations

from dataclasses import dataclass, field

from mec_platform.domain.capacity import LinkCapacity


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Minimise `alpha * latency + beta * imbalance + gamma_ms * exposure`; every term is milliseconds per token.

    Raises:
        ValueError: a weight or a limit is negative.
    """

    # One millisecond of latency costs one millisecond: the other weights are read against it.
    alpha: float = 1.0
    # Imbalance counts the milliseconds by which the slowest stage exceeds a fair share of the work. It costs a
    # saturated chain that much throughput and a single stream nothing; half is the middle between the two loads.
    beta: float = 0.5
    # What it is worth to keep all blocks on trusted nodes: less than one hop over a mobile link (10 ms and more), more
    # than one over a wired link (0.1 to 2 ms), so that privacy picks between near equals and gives way to a real gain.
    gamma_ms: float = 4.0
    # Tokens are recovered from activations with 59 % success behind two blocks and 35 % behind eight (arXiv
    # 2602.16760): two blocks are the least that removes the plain text, the exposure term pulls further.
    trusted_first_blocks: int = 2
    # The last block makes the tokens with the head; more than that one says nothing new of them.
    trusted_last_blocks: int = 1
    # Positions of KV, over all sessions, that every stage must have room for: four chats of 512 tokens.
    kv_tokens_reserved: int = 2048
    # A link that nobody has measured yet: 100 Mbit/s and 2 ms, a modest wired or good radio link, so that an unmeasured
    # link is neither sought nor shunned.
    default_link: LinkCapacity = field(
        default_factory=lambda: LinkCapacity(source="*", target="*", bytes_per_s=12.5e6, round_trip_s=0.002)
    )
    # A token id, its position, session and epoch in one frame between gateway and chain.
    token_frame_bytes: int = 64
    # The exact search grows with 2^nodes; five nodes and 40 blocks stay well below a second in Python.
    exact_nodes: int = 5
    # Beyond that: how many nodes are looked at, and how many partial chains are kept per chain length and cut.
    beam_nodes: int = 12
    beam_width: int = 6

    def __post_init__(self) -> None:
        weights = ("alpha", "beta", "gamma_ms", "trusted_first_blocks", "trusted_last_blocks", "kv_tokens_reserved")
        negative = [name for name in weights if getattr(self, name) < 0]
        if negative:
            raise ValueError(f"must not be negative: {', '.join(negative)}")
