"""The GGUF container, versions 2 and 3: key-value facts, and a table of tensors over the mapped file.

Every count and offset is checked against the file before it is used, so that a damaged file costs neither memory nor
time. What facts and tensors mean is `gguf_file`'s business.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from compiler.models.stored import KINDS, StoredTensor, stored_bytes

_MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_AXES = 4


class GgufContainer:
    """`facts`: key to number, string, or list of either. `tensors`: name to mapped tensor.

    Raises:
        ValueError: not such a file, or a damaged one.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, np.uint8, "r")
        self._bytes = self._data.data
        self._at = 0
        if bytes(self._take(4)) != _MAGIC:
            raise ValueError("it does not start with GGUF")
        version = self._scalar("I")
        if version not in (2, 3):
            raise ValueError(f"its version {version} is not 2 or 3, or it is big-endian")
        tensors, facts = self._scalar("Q"), self._scalar("Q")
        self.facts: dict[str, Any] = {}
        for _ in range(facts):
            key = self._string()
            if key in self.facts:
                raise ValueError(f"{key} is stated twice")
            self.facts[key] = self._fact(self._scalar("I"))
        headers = [self._tensor_header() for _ in range(tensors)]
        alignment = self.facts.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ValueError(f"its alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        self.tensors: dict[str, StoredTensor] = {}
        for name, kind, shape, offset in headers:
            if name in self.tensors:
                raise ValueError(f"{name} is stored twice")
            self.tensors[name] = self._map(name, kind, shape, start + offset)

    def _take(self, size: int) -> memoryview:
        if size > len(self._bytes) - self._at:
            raise ValueError(f"it ends after {len(self._bytes)} bytes")
        self._at += size
        return self._bytes[self._at - size : self._at]

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _string(self) -> str:
        return str(self._take(self._scalar("Q")), "utf-8")

    def _fact(self, code: int) -> Any:
        if code == _STRING:
            return self._string()
        if code == _ARRAY:
            item, count = self._scalar("I"), self._scalar("Q")
            if item == _STRING:
                return [self._string() for _ in range(count)]
            form = _scalar_form(item)
            return list(struct.unpack(f"<{count}{form}", self._take(count * struct.calcsize(f"<{form}"))))
        return self._scalar(_scalar_form(code))

    def _tensor_header(self) -> tuple[str, str, tuple[int, ...], int]:
        name, axes = self._string(), self._scalar("I")
        if not 1 <= axes <= _MAX_AXES:
            raise ValueError(f"{name} has {axes} axes")
        shape = tuple(self._scalar("Q") for _ in range(axes))[::-1]
        if not all(shape):
            raise ValueError(f"{name} is empty")
        kind = GGMLQuantizationType(self._scalar("I")).name
        return name, kind, shape, self._scalar("Q")

    def _map(self, name: str, kind: str, shape: tuple[int, ...], start: int) -> StoredTensor:
        """Kinds that cannot be read keep an empty tensor: only who wants it minds."""
        size = stored_bytes(kind, shape) if kind in KINDS else 0
        if start + size > len(self._data):
            raise ValueError(f"{name} ends {start + size - len(self._data)} bytes behind the file")
        return StoredTensor(name, kind, shape, self._data[start : start + size])


def _scalar_form(code: int) -> str:
    if code not in _SCALARS:
        raise ValueError(f"it has a value of unknown type {code}")
    return _SCALARS[code]
