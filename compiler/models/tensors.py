"""The tensors of a llama-like model by names of our own, and the axes that give them their shapes.

Readers match the names of a file format to these; packing pads along the axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from compiler.models.spec import ModelSpec

Axis = Literal["hidden", "query_heads", "kv_heads", "head", "ffn", "vocab"]

_BLOCK: dict[str, tuple[Axis, ...]] = {
    "attention_norm": ("hidden",),
    "ffn_norm": ("hidden",),
    "query": ("query_heads", "hidden"),
    "key": ("kv_heads", "hidden"),
    "value": ("kv_heads", "hidden"),
    "output": ("hidden", "query_heads"),
    "gate": ("ffn", "hidden"),
    "up": ("ffn", "hidden"),
    "down": ("hidden", "ffn"),
}
_BIAS: dict[str, tuple[Axis, ...]] = {
    "query_bias": ("query_heads",),
    "key_bias": ("kv_heads",),
    "value_bias": ("kv_heads",),
}
_HEAD_NORM: dict[str, tuple[Axis, ...]] = {"query_norm": ("head",), "key_norm": ("head",)}
_TEXT: dict[str, tuple[Axis, ...]] = {
    "embedding": ("vocab", "hidden"),
    "final_norm": ("hidden",),
    "head": ("vocab", "hidden"),
}
# What a package stacks to one matrix: the parts of a block, and the field of `Quantisation` that says how it is stored.
PACKED_MATRICES: dict[str, tuple[tuple[str, ...], str]] = {
    "qkv": (("query", "key", "value"), "qkv"),
    "output": (("output",), "output"),
    "gate": (("gate",), "gate_up"),
    "up": (("up",), "gate_up"),
    "down": (("down",), "down"),
}
_AXES = _BLOCK | _BIAS | _HEAD_NORM | _TEXT


def in_block(block: int, part: str) -> str:
    """Name of a block's tensor, such as `blocks.3.query`."""
    return f"blocks.{block}.{part}"


def part_of(name: str) -> str:
    """What a tensor is, whatever its block: `blocks.3.query` is a `query`."""
    return name.rpartition(".")[2]


def axes_of(name: str) -> tuple[Axis, ...]:
    """Axes of a tensor, rows first."""
    return _AXES[part_of(name)]


def block_parts(spec: ModelSpec) -> tuple[str, ...]:
    """The tensors of one block."""
    return (*_BLOCK, *(_BIAS if spec.qkv_bias else ()), *(_HEAD_NORM if spec.qk_norm else ()))


def tensor_names(spec: ModelSpec) -> Iterator[str]:
    """Every tensor of the model. Lazy: a damaged file may state any number of blocks."""
    yield from ("embedding", "final_norm")
    if not spec.tied_embedding:
        yield "head"
    for block in range(spec.blocks):
        for part in block_parts(spec):
            yield in_block(block, part)


def axis_sizes(spec: ModelSpec) -> dict[Axis, int]:
    """The model's own sizes, without padding."""
    return {
        "hidden": spec.hidden,
        "query_heads": spec.heads * spec.head_dim,
        "kv_heads": spec.kv_heads * spec.head_dim,
        "head": spec.head_dim,
        "ffn": spec.ffn,
        "vocab": spec.vocab,
    }
