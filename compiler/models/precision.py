"""What `auto` stands for: the smallest storages that keep what a model file has."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.models.model_file import ModelFile
from compiler.models.padding import kept_bits
from compiler.models.tensors import PACKED_MATRICES, in_block
from compiler.quantisation import INTEGER_BITS, Quantisation, Storage, find_quantisation, mixed_quantisation


def choose_quantisation(model: ModelFile) -> Quantisation:
    """int4 for matrices that 4 bits keep exactly in all blocks, else int8; blocks of plain floats are quantised to int4."""
    fields = _fields(model)
    if all(model.is_float(name) for names in fields.values() for name in names):
        return find_quantisation("int4")
    return mixed_quantisation(**{field: _storage(model, names) for field, names in fields.items()})


def _fields(model: ModelFile) -> dict[str, list[str]]:
    """The tensors behind each field of `Quantisation` that belongs to the blocks."""
    fields: dict[str, list[str]] = {}
    for parts, field in PACKED_MATRICES.values():
        names = [in_block(block, part) for block in range(model.spec.blocks) for part in parts]
        fields.setdefault(field, []).extend(names)
    return fields


def _storage(model: ModelFile, names: Iterable[str]) -> Storage:
    return "int4" if all(kept_bits(model, name) <= INTEGER_BITS["int4"] for name in names) else "int8"
