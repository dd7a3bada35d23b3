"""A model's tensors at the widths that the kernels take: what `ArchitectureDims` adds to the model's own is zeros.

Every axis has an index: for each padded position the position it takes its numbers from, -1 for zeros. An axis over
heads pads each rotary half of each head, so that the halves stay where the kernels rotate them.
"""

from __future__ import annotations

import math

import numpy as np

from compiler.models.groups import GROUP, Groups, take_rows
from compiler.models.model_file import ModelFile
from compiler.models.spec import ModelSpec
from compiler.models.tensors import Axis, axes_of


def axis_index(spec: ModelSpec, axis: Axis) -> np.ndarray:
    """Where each padded position of `axis` takes its numbers from: int64 [padded size], -1 for zeros."""
    dims = spec.dims
    plain = {
        "hidden": (spec.hidden, dims.hidden),
        "ffn": (spec.ffn, dims.ffn),
        "vocab": (spec.vocab, dims.vocab),
    }
    if axis in plain:
        size, padded = plain[axis]
        return np.concatenate([np.arange(size), np.full(padded - size, -1)])
    heads = {"query_heads": spec.heads, "kv_heads": spec.kv_heads, "head": 1}[axis]
    index = np.full((heads, 2, dims.head_dim // 2), -1)
    index[:, :, : spec.head_dim // 2] = np.arange(heads * spec.head_dim).reshape(heads, 2, -1)
    return index.reshape(-1)


def padded_vector(model: ModelFile, name: str) -> np.ndarray:
    """A norm's gains or a bias, float32."""
    return take_rows(model.values(name), axis_index(model.spec, axes_of(name)[0]))


def padded_values(model: ModelFile, name: str, rows: slice = slice(None)) -> np.ndarray:
    """`rows` of a padded matrix, float32 [rows, columns]."""
    row_index, column_index = (axis_index(model.spec, axis) for axis in axes_of(name))
    index, wanted = _wanted(row_index[rows])
    values = model.values(name, wanted)
    if not _is_whole(column_index, values.shape[1]):
        values = take_rows(values.T, column_index).T
    return values if _is_whole(index, len(values)) else take_rows(values, index)


def padded_groups(model: ModelFile, name: str, bits: int, rows: slice = slice(None)) -> Groups:
    """`rows` of a padded matrix as groups; columns that move between groups are quantised again."""
    row_index, column_index = (axis_index(model.spec, axis) for axis in axes_of(name))
    if _keeps_groups(column_index):
        index, wanted = _wanted(row_index[rows])
        groups = model.groups(name, bits, wanted)
        return groups if _is_whole(index, len(groups.q)) else groups.rows(index)
    return model.quantise(name, padded_values(model, name, rows), bits)


def kept_bits(model: ModelFile, name: str) -> float:
    """Bits of a weight that `padded_groups` keeps exactly; infinite where it quantises in any case."""
    return model.stored_bits(name) if _keeps_groups(axis_index(model.spec, axes_of(name)[1])) else math.inf


def _keeps_groups(column_index: np.ndarray) -> bool:
    return _is_whole(column_index, len(column_index)) and len(column_index) % GROUP == 0


def _is_whole(index: np.ndarray, size: int) -> bool:
    """Whether `index` takes everything as it is."""
    return len(index) == size and bool((index == np.arange(size)).all())


def _wanted(index: np.ndarray) -> tuple[np.ndarray, slice]:
    """The part of the file's rows that `index` needs, and `index` into that part."""
    used = index[index >= 0]
    start, stop = (int(used.min()), int(used.max()) + 1) if len(used) else (0, 1)
    return np.where(index < 0, -1, index - start), slice(start, stop)
