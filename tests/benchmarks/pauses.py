"""What changes of plan cost the one who reads an answer: pure arithmetic over the times at which its tokens came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from tests.benchmarks.answers import Answer

USUAL_TOKENS = 12
"""Tokens after a change whose gaps say what is usual on the new plan."""


@dataclass(frozen=True, slots=True)
class Change:
    """When a change was asked for, when its stages were loaded and KV began to move, and when it was over. Monotonic seconds."""

    began_s: float
    prepared_s: float
    ended_s: float


def pauses_seen(answer: Answer) -> list[float]:
    """For every change of plan within an answer, how much longer than usual its first token took to come, in ms."""
    return [excess for index, excess in _excesses(answer) if answer.epochs[index] != answer.epochs[index - 1]]


def ordinary_excesses(answer: Answer, changes: Sequence[Change]) -> list[float]:
    """The same of every token that no change was under way at: what the machine does by itself. Below 0 counts as 0."""
    return [
        excess
        for index, excess in _excesses(answer)
        if answer.epochs[index] == answer.epochs[index - 1] and not _meets(answer, index, changes)
    ]


def longest_stalls(answer: Answer, change: Change) -> tuple[float, float] | None:
    """How much longer than usual the longest gap was while a change was under way, all of its preparation included, and
    the longest of as many gaps before it, in ms. None where fewer came before.
    """
    during = [index for index in range(1, len(answer.came_s)) if _meets(answer, index, [change])]
    if not during or during[0] - len(during) < 1:
        return None
    before = range(during[0] - len(during), during[0])
    usual_s = median(_gap_s(answer, index) for index in before)
    longest = (max(_gap_s(answer, index) for index in part) for part in (during, before))
    with_change, without = ((gap_s - usual_s) * 1e3 for gap_s in longest)
    return with_change, without


def copying_times(answer: Answer, changes: Sequence[Change]) -> tuple[float, float]:
    """Seconds that tokens took while KV was copied ahead, and that as many would have taken on the same plan undisturbed."""
    took_s = usual_s = 0.0
    for change in changes:
        copying = Change(change.prepared_s, change.prepared_s, change.ended_s)
        during = [
            index
            for index in range(1, len(answer.came_s))
            if _meets(answer, index, [copying]) and answer.epochs[index] == answer.epochs[index - 1]
        ]
        on_plan = {answer.epochs[index] for index in during[:1]}
        during = [index for index in during if answer.epochs[index] in on_plan]
        undisturbed = [
            _gap_s(answer, index)
            for index in range(1, len(answer.came_s))
            if {answer.epochs[index], answer.epochs[index - 1]} == on_plan and not _meets(answer, index, changes)
        ]
        if during and undisturbed:
            took_s += sum(_gap_s(answer, index) for index in during)
            usual_s += len(during) * sum(undisturbed) / len(undisturbed)
    return took_s, usual_s


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """The 50th and 99th; none of nothing."""
    return {f"{name}_p{share}": round(float(np.percentile(values, share)), 2) for share in (50, 99) if values}


def mean(values: Sequence[float], digits: int = 1) -> float:
    """0 of nothing."""
    return round(float(np.mean(values)), digits) if values else 0.0


def _excesses(answer: Answer) -> Iterator[tuple[int, float]]:
    """Per token, how much longer it took to come than those after it on the same plan, in ms."""
    for index in range(1, len(answer.came_s)):
        following = range(index + 1, min(index + 1 + USUAL_TOKENS, len(answer.came_s)))
        after = [_gap_s(answer, i) for i in following if answer.epochs[i] == answer.epochs[index]]
        if after:
            yield index, max(0.0, _gap_s(answer, index) - median(after)) * 1e3


def _gap_s(answer: Answer, index: int) -> float:
    return answer.came_s[index] - answer.came_s[index - 1]


def _meets(answer: Answer, index: int, changes: Sequence[Change]) -> bool:
    """Whether a change was under way in the gap in front of a token."""
    before, at = answer.came_s[index - 1], answer.came_s[index]
    return any(change.began_s < at and before < change.ended_s for change in changes)
