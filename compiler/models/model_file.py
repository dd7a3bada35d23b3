"""What packing sees of a model file, whatever its format: the spec, and every tensor by its name in `tensors`.

A reader of a format opens its container, states the `ModelSpec`, and matches its tensors' names to ours; numbers are
read from the mapped file when they are asked for, rows at a time where a matrix is large.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.errors import ModelFileError
from compiler.models.groups import SPLITS, Groups, quantise_groups
from compiler.models.spec import ModelSpec
from compiler.models.stored import FLOAT_KINDS, KINDS, StoredTensor
from compiler.models.tensors import axes_of, axis_sizes, tensor_names
from compiler.models.tokenizer import ModelTokenizer

_LARGEST_CONTEXT = 1 << 24  # tokens; more is a damaged file
_LARGEST_HEAD = 1024


@dataclass(frozen=True)
class Naming:
    """A format's tensor names: of the text tensors by ours, and of a block's parts, behind `block` with its number.

    `ignored` are endings of tensors that the reader has used already, or that a model does not need.
    """

    text: Mapping[str, str]
    block: str
    parts: Mapping[str, str]
    ignored: tuple[str, ...] = ()


class ModelFile(ABC):
    """An opened model. Names are those of `compiler.models.tensors`.

    Raises:
        ModelFileError: tensors are missing, of another shape or kind, or not known; or the spec is impossible.
    """

    def __init__(self, path: Path, spec: ModelSpec, stored: Mapping[str, StoredTensor], naming: Naming) -> None:
        self.path = path
        self.spec = spec
        _check_spec(path, spec)
        self._tensors = _match_tensors(path, spec, stored, naming)

    @abstractmethod
    def read_tokenizer(self) -> ModelTokenizer:
        """The model's tokenizer; takes a second or two. Raises ModelFileError where it cannot be rebuilt."""

    def values(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """A tensor's `rows` as float32, [rows, columns] or [columns].

        Raises:
            ModelFileError: numbers that are not finite.
        """
        stored = self._tensors[name]
        values = stored.values(rows)
        self._check_finite(stored, values)
        return values

    def groups(self, name: str, bits: int, rows: slice = slice(None)) -> Groups:
        """A matrix's `rows` as groups of at most `bits` bits: as they are where the file's kind allows.

        Raises:
            ModelFileError: numbers that are not finite, or too large for float16.
        """
        stored = self._tensors[name]
        if self.stored_bits(name) > bits:
            return self.quantise(name, self.values(name, rows), bits)
        groups = stored.groups(rows)
        self._check_finite(stored, groups.d, groups.m)
        return groups

    def quantise(self, name: str, values: np.ndarray, bits: int) -> Groups:
        """`values` of a matrix, rearranged, as groups. Raises ModelFileError as `groups` does."""
        with np.errstate(over="ignore", invalid="ignore"):
            groups = quantise_groups(values, bits)
        self._check_finite(self._tensors[name], groups.d, groups.m)
        return groups

    def stored_bits(self, name: str) -> float:
        """Bits of a weight that re-packing as groups keeps exactly; infinite where no number of bits does."""
        return SPLITS.get(self._tensors[name].kind, (math.inf,))[0]

    def is_float(self, name: str) -> bool:
        """Whether the file holds plain floats."""
        return self._tensors[name].kind in FLOAT_KINDS

    def _check_finite(self, stored: StoredTensor, *parts: np.ndarray) -> None:
        if not all(np.isfinite(part).all() for part in parts):
            raise ModelFileError(
                f"'{self.path}': {stored.name} holds numbers that are not finite or too large; download it again"
            )


def head_width(path: Path, hidden: int, heads: int, stated: int) -> int:
    """The width of a head: as stated, or, where that is 0, a head's share of the model's width.

    Raises:
        ModelFileError: a width that no head can have.
    """
    if heads < 1 or (not stated and hidden % heads):
        raise ModelFileError(f"'{path}': its width of {hidden} cannot be shared by {heads} heads; use another model")
    width = stated or hidden // heads
    if not 1 < width <= _LARGEST_HEAD or width % 2:
        raise ModelFileError(f"'{path}': its heads are {width} wide, not an even number up to {_LARGEST_HEAD}")
    return width


def _check_spec(path: Path, spec: ModelSpec) -> None:
    sizes = {"width": spec.hidden, "feed-forward width": spec.ffn, "vocabulary": spec.vocab, "context": spec.context}
    for what, size in {**sizes, "number of blocks": spec.blocks, "number of KV heads": spec.kv_heads}.items():
        if size < 1:
            raise ModelFileError(f"'{path}': its {what} is {size}, which cannot be; download it again")
    if spec.context > _LARGEST_CONTEXT:
        raise ModelFileError(f"'{path}': its context of {spec.context} tokens cannot be; download it again")
    if spec.heads % spec.kv_heads:
        raise ModelFileError(f"'{path}': {spec.heads} heads cannot share {spec.kv_heads} KV heads; use another model")
    if not (0 < spec.rms_eps < math.inf and all(map(math.isfinite, (*spec.rotary.rates, spec.rotary.magnitude)))):
        raise ModelFileError(f"'{path}': its norms or rotary embedding are not finite; download it again")


def _match_tensors(
    path: Path, spec: ModelSpec, stored: Mapping[str, StoredTensor], naming: Naming
) -> dict[str, StoredTensor]:
    """Our names to the file's tensors. A tensor that is left over would have changed the result: refused as well."""
    sizes = axis_sizes(spec)
    matched: dict[str, StoredTensor] = {}
    for name in tensor_names(spec):
        theirs = _their_name(naming, name)
        tensor = stored.get(theirs)
        if tensor is None:
            raise ModelFileError(f"'{path}' lacks the tensor {theirs}; download it again")
        shape = tuple(sizes[axis] for axis in axes_of(name))
        if tensor.shape != shape:
            raise ModelFileError(f"'{path}': {theirs} has the shape {tensor.shape}, not {shape}; download it again")
        if tensor.kind not in KINDS:
            raise ModelFileError(f"'{path}': {theirs} is {tensor.kind}; supported are {', '.join(KINDS)}")
        matched[name] = tensor
    _refuse_unknown(path, stored.keys() - {tensor.name for tensor in matched.values()}, naming.ignored)
    return matched


def _their_name(naming: Naming, name: str) -> str:
    if name in naming.text:
        return naming.text[name]
    _, block, part = name.split(".")
    return naming.block.format(block) + naming.parts[part]


def _refuse_unknown(path: Path, names: Collection[str], ignored: tuple[str, ...]) -> None:
    unknown = sorted(name for name in names if not name.endswith(ignored))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ModelFileError(f"'{path}' has the tensor {unknown[0]!r}{more}, which is not supported; use another model")
