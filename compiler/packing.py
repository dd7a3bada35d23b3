"""Packs weights into the layout that `compiler.kernels.linear` states."""

from __future__ import annotations

import numpy as np

from compiler.models.groups import Groups

LAYOUT_VERSION = 1  # part of every package's key: raise it when a packed byte moves
PACKAGE_VERSION = 2  # likewise: raise it when a package's manifest says something new


def pack_groups(groups: Groups, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """q as uint32 [N/32, K/32, bits, 2, 16] and s as float16 [N/32, K/32, 4, 16]."""
    n, k = groups.q.shape
    # word j of a group: rows (tile, lane) and four columns each
    bytes_ = groups.q.reshape(n // 32, 2, 16, k // 32, 8, 4).transpose(0, 3, 4, 1, 2, 5)
    if bits == 4:
        bytes_ = bytes_[:, :, :4] | (bytes_[:, :, 4:] << np.uint8(4))
    q = np.ascontiguousarray(bytes_).view(np.uint32)[..., 0]
    halves = [x.reshape(n // 32, 2, 16, k // 32).transpose(0, 3, 1, 2) for x in (groups.d, groups.m)]
    return q, np.concatenate(halves, axis=2)


def unpack_groups(q: np.ndarray, s: np.ndarray) -> Groups:
    """What `pack_groups` packed."""
    strips, k32, words = q.shape[:3]
    bytes_ = np.ascontiguousarray(q)[..., None].view(np.uint8)
    if words == 4:
        bytes_ = np.concatenate([bytes_ & 15, bytes_ >> 4], axis=2)
    plain = bytes_.transpose(0, 3, 4, 1, 2, 5).reshape(strips * 32, k32 * 32)
    d, m = (s[:, :, i : i + 2].transpose(0, 2, 3, 1).reshape(strips * 32, k32) for i in (0, 2))
    return Groups(plain, d, m)


def pack_floats(weights: np.ndarray, stored: str = "f32") -> np.ndarray:
    """[N/32, K, 32] of float32, of float16, or of the upper halves of float32 (bf16, as uint16), rounded to nearest."""
    n, k = weights.shape
    packed = np.ascontiguousarray(weights.astype(np.float32).reshape(n // 32, 32, k).transpose(0, 2, 1))
    if stored == "f16":
        return packed.astype(np.float16)
    if stored == "bf16":
        bits = packed.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return packed
