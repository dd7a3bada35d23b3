"""A quantity over time as steps: what a trace says until its next line."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf


@dataclass(frozen=True, slots=True)
class Series:
    """`values[i]` holds from `starts_s[i]` on; the whole begins again after `period_s`, as a trace does that has ended.

    Before 0 s the first value holds.

    Raises:
        ValueError: nothing is in it, or it does not begin at 0 s.
    """

    starts_s: tuple[float, ...]
    values: tuple[float, ...]
    period_s: float
    sums: tuple[float, ...]  # integral of the values up to each start, and up to the period's end

    @classmethod
    def of(cls, starts_s: Sequence[float], values: Sequence[float]) -> Series:
        """A series whose last value holds as long as values do on average."""
        if not starts_s or starts_s[0] != 0:
            raise ValueError("a series begins at 0 s")
        mean_step_s = starts_s[-1] / (len(starts_s) - 1) if len(starts_s) > 1 else 1.0
        period_s = starts_s[-1] + (mean_step_s or 1.0)
        ends = (*starts_s[1:], period_s)
        areas = (value * (end - start) for start, end, value in zip(starts_s, ends, values, strict=True))
        return cls(tuple(starts_s), tuple(values), period_s, tuple(accumulate(areas, initial=0.0)))

    def index(self, at_s: float) -> int:
        """Which value holds at that time."""
        return bisect_right(self.starts_s, max(at_s, 0.0) % self.period_s) - 1

    def at(self, at_s: float) -> float:
        """The value at that time."""
        return self.values[self.index(at_s)]

    def next_change_s(self, at_s: float) -> float:
        """When the next value begins, after `at_s`."""
        if len(self.values) == 1:
            return inf
        at_s = max(at_s, 0.0)
        turn = at_s // self.period_s
        index = bisect_right(self.starts_s, at_s - turn * self.period_s)
        within = self.starts_s[index] if index < len(self.starts_s) else self.period_s
        # Where rounding puts the next value at or before now, the one after it is meant.
        following = turn * self.period_s + within
        return following if following > at_s else at_s + 1e-6

    def mean(self, start_s: float, stop_s: float) -> float:
        """The mean over a stretch of time."""
        if stop_s <= start_s:
            return self.at(start_s)
        return (self._integral(stop_s) - self._integral(start_s)) / (stop_s - start_s)

    def _integral(self, at_s: float) -> float:
        turns, rest = divmod(max(at_s, 0.0), self.period_s)
        index = bisect_right(self.starts_s, rest) - 1
        return turns * self.sums[-1] + self.sums[index] + self.values[index] * (rest - self.starts_s[index])
