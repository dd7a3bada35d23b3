"""Which chain a request starts on: the one where its tokens will come soonest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChainLoad:
    """A chain as its gateway sees it.

    `token_s` is the shortest time that one of its recent tokens took, 0 where it made none; `usable` says whether all of
    its nodes answer.
    """

    chain: int
    sessions: int
    token_s: float
    usable: bool


def choose_chain(loads: Sequence[ChainLoad]) -> int | None:
    """The chain where a token of one session more is expected first; None where there is no chain.

    Sessions of a chain take turns, so a token waits for as many as there are. A chain that made no token yet is taken
    for as fast as the fastest, so that it is tried. Ties go to fewer sessions, then to the lower number.
    """
    fastest_s = min((load.token_s for load in loads if load.token_s > 0), default=1.0)

    def wait(load: ChainLoad) -> tuple[bool, float, int, int]:
        expected_s = (load.sessions + 1) * (load.token_s or fastest_s)
        return not load.usable, expected_s, load.sessions, load.chain

    return min(loads, key=wait).chain if loads else None
