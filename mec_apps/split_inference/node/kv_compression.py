"""KV in fewer bytes while it is under way: int8 with a scale for every head and position, half of what float16 takes.

What arrives is not what left: answers that go on with it may differ from those of an undisturbed run, so it is off unless
an operator asks for it, for links that would otherwise carry too little.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

_LARGEST = 127
_SCALE_BYTES = 4


class KvCompression(StrEnum):
    """How a node sends KV."""

    NONE = "none"
    INT8 = "int8"


def compress(rows: bytes, head_dim: int, positions: int, *, position_last: bool) -> bytes:
    """float16 [..., head_dim, positions] (`position_last`) or [..., positions, head_dim] as scales, then int8 values.

    The scale of a head and position is its largest magnitude over 127: no value is off by more than half of it.
    """
    values = np.frombuffer(rows, np.float16).reshape(_shape(head_dim, positions, position_last)).astype(np.float32)
    axis = 1 if position_last else 2
    scales: npt.NDArray[np.float32] = np.abs(values).max(axis=axis, keepdims=True) / np.float32(_LARGEST)
    steps = np.divide(values, scales, out=np.zeros_like(values), where=scales > 0)
    return scales.tobytes() + np.rint(steps).astype(np.int8).tobytes()


def expand(packed: bytes, head_dim: int, positions: int, *, position_last: bool) -> bytes:
    """The float16 rows that `compress` was given, as near as int8 keeps them.

    Raises:
        ValueError: not what `compress` makes for these sizes.
    """
    heads, rest = divmod(len(packed), positions * (head_dim + _SCALE_BYTES))
    if rest or not heads:
        raise ValueError(f"{len(packed)} bytes are no compressed KV of {positions} positions")
    scales = np.frombuffer(packed, np.float32, heads * positions)
    steps = np.frombuffer(packed, np.int8, offset=scales.nbytes).reshape(_shape(head_dim, positions, position_last))
    values = steps * scales.reshape((heads, 1, positions) if position_last else (heads, positions, 1))
    limit = np.finfo(np.float16).max
    packed_values: npt.NDArray[np.float16] = np.clip(values, -limit, limit).astype(np.float16)
    return packed_values.tobytes()


def _shape(head_dim: int, positions: int, position_last: bool) -> tuple[int, int, int]:
    return (-1, head_dim, positions) if position_last else (-1, positions, head_dim)
