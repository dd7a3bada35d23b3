"""Measured compute times of a node: recent medians, so that one disturbed run does not move a decision."""

from __future__ import annotations

import statistics
from collections import deque

from mec_platform.domain.cost_profile import Batch, CostProfile

WINDOW = 25
"""Runs that a median looks back on: at 100 tokens/s a quarter of a second, at one probe a second half a minute."""

PREFILL_ROWS = 16
"""From this many rows on, a run counts as prefill and its time is divided by its rows."""


class Timings:
    """Seconds of one row through one block (decode), of one prefill row through one block, and of the head for one row.

    Where the machine has a cost profile, every run is also held against what the profile says of it.
    """

    def __init__(self, profile: CostProfile | None = None) -> None:
        self.profile = profile
        self._ratio: deque[float] = deque(maxlen=WINDOW)
        self._block: deque[float] = deque(maxlen=WINDOW)
        self._prefill: deque[float] = deque(maxlen=WINDOW)
        self._head: deque[float] = deque(maxlen=WINDOW)

    def add_blocks(self, seconds: float, layers: int, batch: Batch) -> None:
        """Records one run through `layers` blocks; without a profile, runs between decode and prefill say nothing clear."""
        if batch.rows == 1:
            self._block.append(seconds / layers)
        elif batch.rows >= PREFILL_ROWS:
            self._prefill.append(seconds / layers / batch.rows)
        if self.profile is not None:
            self._ratio.append(seconds / layers / self.profile.block_s(batch))

    def add_head(self, seconds: float, rows: int) -> None:
        """Records one run of the head."""
        if rows == 1:
            self._head.append(seconds)

    @property
    def block_s(self) -> float:
        """One row through one block; 0 before the first run."""
        return statistics.median(self._block) if self._block else 0.0

    @property
    def prefill_block_s_per_row(self) -> float:
        """One prefill row through one block; 0 before the first run."""
        return statistics.median(self._prefill) if self._prefill else 0.0

    @property
    def head_s(self) -> float:
        """Head and sampling of one row; 0 before the first run."""
        return statistics.median(self._head) if self._head else 0.0

    @property
    def profile_ratio(self) -> float:
        """What recent runs took over what the profile says of them; 0 before the first run, or without a profile."""
        return statistics.median(self._ratio) if self._ratio else 0.0
