"""One tensor as its file holds it, mapped: the form that readers of all file formats give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from compiler.models.groups import SPLITS, Groups

FLOAT_KINDS = ("F32", "F16", "BF16")
KINDS = (
    *FLOAT_KINDS,
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4"),
)


@dataclass(frozen=True)
class StoredTensor:
    """`data`: raw bytes, uint8; `shape`: rows first; `kind`: one of `KINDS`, which are GGUF's names.

    `row_order`, where there is one, lists the rows of the file in the order in which they are wanted.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    data: np.ndarray = field(repr=False)
    row_order: np.ndarray | None = field(default=None, repr=False)

    def values(self, rows: slice = slice(None)) -> np.ndarray:
        """The numbers, float32 [rows, columns] or [columns]."""
        raw = self._raw(rows)
        with np.errstate(all="ignore"):  # numbers that are not finite are the caller's to judge
            plain: np.ndarray = quants.dequantize(raw, GGMLQuantizationType[self.kind]).astype(np.float32, copy=False)
        if len(self.shape) == 1:
            plain = plain[0] if self.row_order is None else plain[0][self.row_order]
        return plain

    def groups(self, rows: slice = slice(None)) -> Groups:
        """A matrix of a kind in `SPLITS`, as it is."""
        with np.errstate(all="ignore"):
            return SPLITS[self.kind][1](self._raw(rows))

    def _raw(self, rows: slice) -> np.ndarray:
        """Bytes of the wanted rows, uint8 [rows, bytes of a row]; a vector counts as one row."""
        if len(self.shape) == 1:
            return self.data[None]
        by_row = self.data.reshape(self.shape[0], -1)
        return np.ascontiguousarray(by_row[rows] if self.row_order is None else by_row[self.row_order[rows]])


def stored_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor.

    Raises:
        ValueError: rows that are no whole number of the kind's blocks.
    """
    columns_per_block: int
    block_bytes: int
    columns_per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    size = block_bytes
    for axis, length in enumerate(reversed(shape)):
        if axis == 0 and length % columns_per_block:
            raise ValueError(f"rows of {length} columns cannot be {kind}")
        size *= length // columns_per_block if axis == 0 else length
    return size
