"""What a member is told in answer to each of its reports: what is committed, and how many sessions a gateway may have.

A member that missed an announcement catches up by this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChainEpoch:
    """What a chain was last committed to: a plan, or its end."""

    chain: int
    epoch: int
    dropped: bool


@dataclass(frozen=True, slots=True)
class HeldPlan:
    """A committed plan that nothing may be sent into any more, and why, for those whose answers wait."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionLimit:
    """At most so many sessions at a time, and why, for those who are turned away."""

    max_sessions: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """`epoch` is what the member shall be at; `limit` is for gateways, None where they may take all they can.

    Epochs below `living_epoch` that are not committed are nobody's work any more: whoever attempted them has given up, has
    been lost, or leads no longer. A member that is prepared for one, or has gone over to one, goes back. Plans that are not
    `held` may be used.
    """

    epoch: int
    chains: tuple[ChainEpoch, ...] = ()
    limit: SessionLimit | None = None
    living_epoch: int = 0
    held: tuple[HeldPlan, ...] = ()


def share_of_limit(max_sessions: int, sessions: Mapping[str, int], gateway: str) -> int:
    """How many sessions one gateway may have of the `max_sessions` of all; `sessions` are those that each has now.

    What is free is shared evenly. Where all have more than they may, each gives up the same share, so that the sum
    comes down as sessions end.
    """
    total = sum(sessions.values())
    mine = sessions.get(gateway, 0)
    if total > max_sessions:
        return max_sessions * mine // total
    free, count = max_sessions - total, max(1, len(sessions))
    place = sorted(sessions).index(gateway) if gateway in sessions else count
    return mine + free // count + (place < free % count)
