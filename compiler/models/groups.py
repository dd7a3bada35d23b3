"""Quantised matrices in groups of 32 columns, w = d*q + m with unsigned q: the form all GGUF kinds are brought to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GROUP = 32


@dataclass(frozen=True)
class Groups:
    """`q` uint8 [rows, columns], `d` and `m` float16 [rows, columns / 32]."""

    q: np.ndarray
    d: np.ndarray
    m: np.ndarray

    def rows(self, order: np.ndarray) -> Groups:
        """The same rows in another order."""
        return Groups(self.q[order], self.d[order], self.m[order])

    def values(self) -> np.ndarray:
        """The weights, float32 [rows, columns]."""
        rows, columns = self.q.shape
        q = self.q.reshape(rows, -1, GROUP).astype(np.float32)
        w: np.ndarray = q * self.d.astype(np.float32)[..., None] + self.m.astype(np.float32)[..., None]
        return w.reshape(rows, columns)


def stack_rows(parts: list[Groups]) -> Groups:
    """Matrices of equal width, one below the other."""
    return Groups(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("q", "d", "m")))


def _half(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float16)[..., 0]


def _nibbles(raw: np.ndarray) -> np.ndarray:
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def split_q4_1(raw: np.ndarray, rows: int, columns: int) -> Groups:
    """Q4_1: d, m, 16 bytes of nibbles per group."""
    b = raw.reshape(rows, columns // GROUP, 20)
    return Groups(_nibbles(b[..., 4:]).reshape(rows, columns), _half(b[..., :2]), _half(b[..., 2:4]))


def split_q4_0(raw: np.ndarray, rows: int, columns: int) -> Groups:
    """Q4_0: d, 16 bytes of nibbles per group; w = d * (q - 8)."""
    b = raw.reshape(rows, columns // GROUP, 18)
    d = _half(b[..., :2])
    return Groups(_nibbles(b[..., 2:]).reshape(rows, columns), d, (d.astype(np.float32) * -8).astype(np.float16))


def split_q8_0(raw: np.ndarray, rows: int, columns: int) -> Groups:
    """Q8_0: d, 32 signed bytes per group; stored here with 128 added."""
    b = raw.reshape(rows, columns // GROUP, 34)
    d = _half(b[..., :2])
    q = b[..., 2:] ^ np.uint8(128)  # two's complement plus 128
    return Groups(q.reshape(rows, columns), d, (d.astype(np.float32) * -128).astype(np.float16))


def quantise_groups(weights: np.ndarray, bits: int) -> Groups:
    """Nearest values between each group's least and largest weight."""
    rows, columns = weights.shape
    w = weights.astype(np.float32).reshape(rows, columns // GROUP, GROUP)
    low = w.min(-1)
    m = low.astype(np.float16)
    d = ((w.max(-1) - m.astype(np.float32)) / (2**bits - 1)).astype(np.float16)
    step = np.maximum(d.astype(np.float32), np.float32(1e-12))
    q = np.rint((w - m.astype(np.float32)[..., None]) / step[..., None])
    return Groups(np.clip(q, 0, 2**bits - 1).astype(np.uint8).reshape(rows, columns), d, m)
