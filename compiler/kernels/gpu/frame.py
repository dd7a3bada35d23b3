"""What a frame brings to the device: one int32 array, copied at once, that every kernel reads from.

    positions    [rows]
    slots        [rows]               rows of the page table below
    content      [rows] tokens, or [rows, hidden] float32 bits
    draws        [draws, DRAW_WORDS]  row, position of the token to come, temperature, nucleus, seed (low, high word)
    page table   [slots, pages of a context]

Kernels get the count of rows, and where what they need begins. Counterpart on the node: `device_frame`.
"""

from __future__ import annotations

DRAW_WORDS = 6
DRAW_ROW, DRAW_POSITION, DRAW_TEMPERATURE, DRAW_NUCLEUS, DRAW_SEED_LOW, DRAW_SEED_HIGH = range(DRAW_WORDS)


def draw_setting(frame, start, draw, which):
    """One of a draw's words; `start` is where the draws begin."""
    return frame[start + draw * DRAW_WORDS + which]
