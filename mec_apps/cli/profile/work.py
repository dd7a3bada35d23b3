"""The least that the operations of a model have to do, and how long that takes at a machine's limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mec_apps.split_inference.model_package import ModelPackage
from mec_platform.domain.layers import LayerRange

ACTIVATION_TERMS = 2
"""A quantised activation is two int8 terms: every product of a quantised matrix is two byte products."""

# Operation of a block, by the name of its region in the kernels: the packed matrices that it multiplies with.
_MATRICES = {"qkv": ("qkv",), "output": ("output",), "gate_up": ("gate", "up"), "down": ("down",)}


class Limits(Protocol):
    """What a machine can do at most in a second, all its threads together; measured, stated or assumed."""

    @property
    def read_bytes_per_s(self) -> float: ...

    @property
    def float_ops_per_s(self) -> float: ...

    @property
    def byte_ops_per_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Work:
    """The least that an operation has to do: bytes from memory, float32 operations, byte operations."""

    read_bytes: float = 0.0
    float_ops: float = 0.0
    byte_ops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.read_bytes + other.read_bytes, self.float_ops + other.float_ops, self.byte_ops + other.byte_ops
        )

    def times(self, count: int) -> Work:
        """The same `count` times."""
        return Work(self.read_bytes * count, self.float_ops * count, self.byte_ops * count)

    def least_seconds(self, limits: Limits) -> tuple[float, str]:
        """The time at the machine's limits, and which of them binds."""
        return max(
            (self.read_bytes / limits.read_bytes_per_s, "memory"),
            (self.float_ops / limits.float_ops_per_s, "float32"),
            (self.byte_ops / limits.byte_ops_per_s, "int8"),
        )


def block_work(package: ModelPackage, rows: int, context: int) -> dict[str, Work]:
    """Of one block, for `rows` consecutive tokens of a session that has `context` tokens already; by operation."""
    dims = package.dims
    block = LayerRange(0, 1)
    shapes = {
        "qkv": ((dims.heads + 2 * dims.kv_heads) * dims.head_dim, dims.hidden),
        "output": (dims.hidden, dims.heads * dims.head_dim),
        "gate": (dims.ffn, dims.hidden),
        "up": (dims.ffn, dims.hidden),
        "down": (dims.hidden, dims.ffn),
    }
    positions = rows * context + rows * (rows + 1) // 2
    work = {
        "attention": Work(
            read_bytes=(context + rows) * package.shape.kv_bytes_per_token_per_block,
            float_ops=4 * dims.heads * dims.head_dim * positions,
        )
    }
    for operation, names in _MATRICES.items():
        total = Work()
        for name in names:
            q, s = (package.tensor(f"blocks.{name}.{part}", block) for part in ("q", "s"))
            total += _product(q, s, rows * shapes[name][0] * shapes[name][1])
        work[operation] = total
    return work


def head_work(package: ModelPackage, rows: int) -> Work:
    """Of all logits of `rows` rows."""
    products = rows * package.dims.vocab * package.dims.hidden
    return _product(package.tensor("head.q"), package.tensor("head.s"), products)


def _product(q: np.ndarray, s: np.ndarray, products: int) -> Work:
    quantised = q.dtype == np.uint32
    return Work(
        read_bytes=q.nbytes + s.nbytes,
        float_ops=0 if quantised else 2 * products,
        byte_ops=2 * ACTIVATION_TERMS * products if quantised else 0,
    )
