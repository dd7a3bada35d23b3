"""Safetensors files, one or several shards: a table of tensors over the mapped files.

The format: the header's length in 8 bytes, the header as JSON, then the data. What the tensors mean is
`hugging_face`'s business.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import ModelFileError
from compiler.models.folder import safetensors_files
from compiler.models.stored import FLOAT_KINDS, StoredTensor, stored_bytes


def read_safetensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of the model in `folder`, mapped.

    Raises:
        ModelFileError: a file is missing, damaged, or repeats a tensor of another.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in safetensors_files(folder):
        try:
            found = _read_file(path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(
                f"'{path}' is not a readable safetensors file ({reason}); download it again"
            ) from error
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise ModelFileError(f"'{path}' holds {twice[0]!r}, which another file holds too; download the model again")
        tensors |= found
    return tensors


def _read_file(path: Path) -> dict[str, StoredTensor]:
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    start = 8 + length
    if len(data) < 8 or start > len(data):
        raise ValueError(f"it ends after {len(data)} bytes")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    return {name: _map(name, entry, data[start:]) for name, entry in header.items()}


def _map(name: str, entry: dict[str, Any], data: np.ndarray) -> StoredTensor:
    """A tensor of another type than floats stays empty: only who wants it minds."""
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not isinstance(kind, str) or not all(isinstance(size, int) and size >= 0 for size in (*shape, begin, end)):
        raise ValueError(f"the entry of {name} is malformed")
    if kind not in FLOAT_KINDS:
        return StoredTensor(name, kind, shape, data[:0])
    if end > len(data) or end - begin != stored_bytes(kind, shape):
        raise ValueError(f"{name} does not fit its {kind} {list(shape)}")
    return StoredTensor(name, kind, shape, data[begin:end])
