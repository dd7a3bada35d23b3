"""How long the tokens of the last seconds took, as the gateway reports it: sessions note, whoever reports asks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0
MAX_TIMES = 2000
PERCENTILE = 0.95


class RecentTimes:
    """Seconds of tokens, and of first tokens from the arrival of their request."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self.clock_s = clock_s
        self._tokens: deque[tuple[float, float]] = deque(maxlen=MAX_TIMES)
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=MAX_TIMES)

    def note(self, since_s: float, *, first: bool) -> None:
        """A token is there that was waited for since then."""
        now_s = self.clock_s()
        (self._first_tokens if first else self._tokens).append((now_s, now_s - since_s))

    @property
    def token_s(self) -> float:
        """95th percentile of the last ten seconds' tokens; 0 where there were none."""
        return self._percentile(self._tokens)

    @property
    def first_token_s(self) -> float:
        """95th percentile of the last ten seconds' first tokens; 0 where there were none."""
        return self._percentile(self._first_tokens)

    def _percentile(self, noted: deque[tuple[float, float]]) -> float:
        while noted and noted[0][0] < self.clock_s() - WINDOW_S:
            noted.popleft()
        ordered = sorted(took_s for _, took_s in noted)
        return ordered[min(len(ordered) - 1, int(PERCENTILE * len(ordered)))] if ordered else 0.0
