"""Packs a batch into the one int32 array that a device gets of it. Counterpart: `compiler.kernels.gpu.frame`, which reads it.

positions    [rows]
slots        [rows]               rows of the page table below
content      [rows] tokens, or [rows, hidden] float32 bits
draws        [draws, 6]           row, position, temperature, nucleus, seed (low, high word)
page table   [sessions of the batch, pages that their contexts reach]
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from mec_apps.split_inference.node.stage_model import Integers, StageBatch

_DRAW = struct.Struct("<iiffII")
_WORD = 4


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """Where each part begins, in words, and how many words there are. `stride` is the length of a page table's row."""

    content: int
    draws: int
    table: int
    stride: int
    words: int


def pack_device_frame(batch: StageBatch, page_table: Integers, page_tokens: int, frame: Integers) -> FrameLayout:
    """Fills the beginning of `frame`; of the page table only the rows and pages that the batch reaches.

    Raises:
        ValueError: it does not fit.
    """
    rows = len(batch.positions)
    sessions, places = _places(batch.slots)
    stride = int(batch.positions.max()) // page_tokens + 1
    draws = 2 * rows + len(batch.content) // _WORD
    table = draws + len(batch.draws) * _DRAW.size // _WORD
    words = table + len(sessions) * stride
    if words > len(frame):
        raise ValueError(f"a frame of {words} words; there is room for {len(frame)}")
    frame[:rows] = batch.positions
    frame[rows : 2 * rows] = places
    frame[2 * rows : draws] = np.frombuffer(batch.content, np.int32)
    packed = frame[draws:table].view(np.uint8).data
    for i, draw in enumerate(batch.draws):
        settings, seed = draw.settings, draw.settings.seed % 2**64
        _DRAW.pack_into(
            packed,
            i * _DRAW.size,
            draw.row,
            draw.position,
            settings.temperature,
            settings.top_p,
            seed & 0xFFFFFFFF,
            seed >> 32,
        )
    frame[table:words] = page_table[sessions, :stride].reshape(-1)
    return FrameLayout(2 * rows, draws, table, stride, words)


def frame_words(rows: int, hidden: int, sessions: int, pages_per_session: int) -> int:
    """Words of the largest frame."""
    return rows * (2 + hidden + _DRAW.size // _WORD) + sessions * pages_per_session


def _places(slots: Integers) -> tuple[Integers, Integers]:
    """The slots that a batch has, and of every row which of them. Batches of one session, the common case, are quick."""
    if (slots == slots[0]).all():
        return slots[:1], np.zeros_like(slots)
    sessions, places = np.unique(slots, return_inverse=True)
    return sessions, places.astype(np.int32)
