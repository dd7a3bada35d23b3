"""Quantised matrices in groups of 32 columns, w = d*q + m with unsigned q: the form that all kinds are brought to.

Kinds whose scales cover 32 columns are re-packed as they are. What that costs: nothing for Q4_0, Q4_1, Q5_0, Q5_1 and
Q8_0; for Q4_K and Q5_K, whose scale is a product, the rounding of the product to float16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GROUP = 32


@dataclass(frozen=True)
class Groups:
    """`q` uint8 [rows, columns], `d` and `m` float16 [rows, columns / 32]."""

    q: np.ndarray
    d: np.ndarray
    m: np.ndarray

    def rows(self, index: np.ndarray) -> Groups:
        """The rows that `index` lists; a row of zeros for -1."""
        return Groups(*(take_rows(part, index) for part in (self.q, self.d, self.m)))

    def values(self) -> np.ndarray:
        """The weights, float32 [rows, columns]."""
        rows, columns = self.q.shape
        q = self.q.reshape(rows, -1, GROUP).astype(np.float32)
        w: np.ndarray = q * self.d.astype(np.float32)[..., None] + self.m.astype(np.float32)[..., None]
        return w.reshape(rows, columns)


def take_rows(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """array[index]; zeros for -1."""
    taken: np.ndarray = array[np.maximum(index, 0)]
    taken[index < 0] = 0
    return taken


def stack_rows(parts: list[Groups]) -> Groups:
    """Matrices of equal width, one below the other."""
    return Groups(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("q", "d", "m")))


def quantise_groups(weights: np.ndarray, bits: int) -> Groups:
    """Nearest values between each group's ends. float32 [rows, columns], columns a multiple of 32.

    The ends are the least and the largest weight; with 4 bits, that and a narrower range are refined by least squares
    and each group takes the one of least squared error.
    """
    rows, columns = weights.shape
    at_once = max(1, _CHUNK_WEIGHTS // columns)
    chunks = [weights[start : start + at_once] for start in range(0, rows, at_once)]
    return stack_rows([_quantise_rows(chunk.astype(np.float32, copy=False), bits) for chunk in chunks])


def _quantise_rows(weights: np.ndarray, bits: int) -> Groups:
    w = weights.reshape(len(weights), -1, GROUP)
    low, high = w.min(-1), w.max(-1)
    top = 2**bits - 1
    q, d, m = _round_between(w, (high - low) / top, low, top)
    if bits < 8:
        least = _squared_error(w, q, d, m)
        for share in _RANGE_SHARES:
            inset = (high - low) * np.float32((1 - share) / 2)
            start = _round_between(w, (high - low) * np.float32(share) / top, low + inset, top)[0]
            candidate = _round_between(w, *_fit_line(w, start), top)
            error = _squared_error(w, *candidate)
            better = error < least
            least = np.where(better, error, least)
            q = np.where(better[..., None], candidate[0], q)
            d, m = np.where(better, candidate[1], d), np.where(better, candidate[2], m)
    return Groups(q.reshape(weights.shape), d, m)


_CHUNK_WEIGHTS = 1 << 17  # quantised at a time: what is computed in between stays in the processor's cache
_RANGE_SHARES = (1.0, 0.93)  # of the distance between the ends


def _round_between(w: np.ndarray, step: np.ndarray, low: np.ndarray, top: int) -> tuple[np.ndarray, ...]:
    """q, d and m for these steps and offsets, which float16 rounds first."""
    d, m = step.astype(np.float16), low.astype(np.float16)
    divisor = np.maximum(d.astype(np.float32), np.float32(1e-12))
    q = np.rint((w - m.astype(np.float32)[..., None]) / divisor[..., None])
    return np.clip(q, 0, top).astype(np.uint8), d, m


def _fit_line(w: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step and offset of least squared error for these q."""
    centred = q - q.mean(-1, keepdims=True, dtype=np.float32)
    spread = np.maximum((centred * centred).sum(-1), np.float32(1e-12))
    step = np.maximum((centred * w).sum(-1) / spread, 0)
    return step, w.mean(-1) - step * q.mean(-1, dtype=np.float32)


def _squared_error(w: np.ndarray, q: np.ndarray, d: np.ndarray, m: np.ndarray) -> np.ndarray:
    off = q * d.astype(np.float32)[..., None] + m.astype(np.float32)[..., None] - w
    error: np.ndarray = (off * off).sum(-1)
    return error


def _blocks(raw: np.ndarray, size: int) -> np.ndarray:
    return raw.reshape(len(raw), -1, size)


def _half(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float16)[..., 0]


def _nibbles(raw: np.ndarray) -> np.ndarray:
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
    """32 bits, one of each weight, as 16 or 0."""
    return np.unpackbits(np.ascontiguousarray(raw), axis=-1, bitorder="little") << np.uint8(4)


def _groups(q: np.ndarray, d: np.ndarray, m: np.ndarray) -> Groups:
    """Every weight's q, whatever its shape between rows and columns; d and m per group."""
    rows = len(q)
    return Groups(q.reshape(rows, -1), d.reshape(rows, -1), m.reshape(rows, -1))


def _times(d: np.ndarray, factor: np.ndarray | int) -> np.ndarray:
    product: np.ndarray = (d.astype(np.float32) * factor).astype(np.float16)
    return product


def _split_q4_0(raw: np.ndarray) -> Groups:
    """d, 16 bytes of nibbles per group; w = d * (q - 8)."""
    b = _blocks(raw, 18)
    d = _half(b[..., :2])
    return _groups(_nibbles(b[..., 2:]), d, _times(d, -8))


def _split_q4_1(raw: np.ndarray) -> Groups:
    """d, m, 16 bytes of nibbles per group."""
    b = _blocks(raw, 20)
    return _groups(_nibbles(b[..., 4:]), _half(b[..., :2]), _half(b[..., 2:4]))


def _split_q5_0(raw: np.ndarray) -> Groups:
    """d, 32 fifth bits, 16 bytes of nibbles per group; w = d * (q - 16)."""
    b = _blocks(raw, 22)
    d = _half(b[..., :2])
    return _groups(_nibbles(b[..., 6:]) | _fifth_bits(b[..., 2:6]), d, _times(d, -16))


def _split_q5_1(raw: np.ndarray) -> Groups:
    """d, m, 32 fifth bits, 16 bytes of nibbles per group."""
    b = _blocks(raw, 24)
    return _groups(_nibbles(b[..., 8:]) | _fifth_bits(b[..., 4:8]), _half(b[..., :2]), _half(b[..., 2:4]))


def _split_q8_0(raw: np.ndarray) -> Groups:
    """d, 32 signed bytes per group; stored here with 128 added."""
    b = _blocks(raw, 34)
    d = _half(b[..., :2])
    return _groups(b[..., 2:] ^ np.uint8(128), d, _times(d, -128))  # two's complement plus 128


def _six_bit_scales(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d and m of the 8 groups of each block of 256: its two scales times 6-bit factors, packed in 12 bytes."""
    low, middle, high = b[..., 4:8], b[..., 8:12], b[..., 12:16]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    offsets = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=-1)
    return _times(_half(b[..., :2])[..., None], scales), _times(
        _half(b[..., 2:4])[..., None], -offsets.astype(np.int16)
    )


def _nibbles_by_64(raw: np.ndarray) -> np.ndarray:
    """128 bytes to [8, 32]: 32 bytes hold a group in their low nibbles and the next one in their high nibbles."""
    b = raw.reshape(*raw.shape[:-1], 4, 32)
    return np.stack([b & 15, b >> 4], axis=-2).reshape(*raw.shape[:-1], 8, 32)


def _split_q4_k(raw: np.ndarray) -> Groups:
    """Per 256 columns: two scales, 12 bytes of 6-bit factors, 128 bytes of nibbles."""
    b = _blocks(raw, 144)
    return _groups(_nibbles_by_64(b[..., 16:]), *_six_bit_scales(b))


def _split_q5_k(raw: np.ndarray) -> Groups:
    """As Q4_K, with 32 bytes of fifth bits before the nibbles: bit i of byte j for column j of group i."""
    b = _blocks(raw, 176)
    fifth = (b[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1) << np.uint8(4)
    return _groups(_nibbles_by_64(b[..., 48:]) | fifth, *_six_bit_scales(b))


# Kinds that come over as they are: how many bits their q needs, and the reader of raw rows, uint8 [rows, bytes].
SPLITS: dict[str, tuple[int, Callable[[np.ndarray], Groups]]] = {
    "Q4_0": (4, _split_q4_0),
    "Q4_1": (4, _split_q4_1),
    "Q4_K": (4, _split_q4_k),
    "Q5_0": (5, _split_q5_0),
    "Q5_1": (5, _split_q5_1),
    "Q5_K": (5, _split_q5_k),
    "Q8_0": (8, _split_q8_0),
}
