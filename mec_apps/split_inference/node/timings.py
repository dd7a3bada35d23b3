"""Measured compute times of a node: recent medians, so that one disturbed run does not move a decision."""

from __future__ import annotations

import statistics
from collections import deque

WINDOW = 25
"""Runs that a median looks back on: at 100 tokens/s a quarter of a second, at one probe a second half a minute."""

PREFILL_ROWS = 16
"""From this many rows on, a run counts as prefill and its time is divided by its rows."""


class Timings:
    """Seconds of one row through one block (decode), of one prefill row through one block, and of the head for one row."""

    def __init__(self) -> None:
        self._block: deque[float] = deque(maxlen=WINDOW)
        self._prefill: deque[float] = deque(maxlen=WINDOW)
        self._head: deque[float] = deque(maxlen=WINDOW)

    def add_blocks(self, seconds: float, layers: int, rows: int) -> None:
        """Records one run of `rows` rows through `layers` blocks; runs between decode and prefill say nothing clear."""
        if rows == 1:
            self._block.append(seconds / layers)
        elif rows >= PREFILL_ROWS:
            self._prefill.append(seconds / layers / rows)

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
