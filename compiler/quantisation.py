"""The quantisations that the compiler offers, and the name of the interface between packages and artefacts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from compiler.errors import QuantisationError
from compiler.models.spec import ArchitectureDims
from compiler.packing import LAYOUT_VERSION

Storage = Literal["f32", "f16", "bf16", "int8", "int4"]
INTEGER_BITS: dict[str, int] = {"int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How each matrix of a block is stored, and the embedding and head (`text`): all as floats, or all as integers."""

    name: str
    qkv: Storage
    output: Storage
    gate_up: Storage
    down: Storage
    text: Storage

    @property
    def storages(self) -> tuple[Storage, ...]:
        """Storage of every matrix, in the order of the fields."""
        return (self.qkv, self.output, self.gate_up, self.down, self.text)

    @property
    def is_float(self) -> bool:
        """Whether activations stay floats."""
        return self.text not in INTEGER_BITS


QUANTISATIONS = (
    Quantisation("int4", "int4", "int4", "int4", "int4", "int8"),
    Quantisation("int8", "int8", "int8", "int8", "int8", "int8"),
    Quantisation("f16", "f16", "f16", "f16", "f16", "f16"),
    Quantisation("bf16", "bf16", "bf16", "bf16", "bf16", "bf16"),
    Quantisation("f32", "f32", "f32", "f32", "f32", "f32"),
)
AUTO = "auto"  # stands for what keeps all that a model file has; resolved when the file is known
_MIXED = "mixed-"


def find_quantisation(name: str) -> Quantisation:
    """The quantisation called `name`: a row of the table, or as `mixed_quantisation` names one.

    Raises:
        QuantisationError: no such one.
    """
    for row in QUANTISATIONS:
        if row.name == name:
            return row
    storages: list[Storage] = ["int4" if digit == "4" else "int8" for digit in name.removeprefix(_MIXED)]
    if len(storages) == 5 and mixed_quantisation(*storages[:4]).name == name:
        return mixed_quantisation(*storages[:4])
    known = ", ".join((AUTO, *(row.name for row in QUANTISATIONS)))
    raise QuantisationError(f"unknown quantisation '{name}'; known ones: {known}")


def mixed_quantisation(qkv: Storage, output: Storage, gate_up: Storage, down: Storage) -> Quantisation:
    """The quantisation with these integer storages, and 8 bits for the text, which no kernel reads in fewer.

    A row of the table, or else one named by its bits, such as `mixed-84488`.
    """
    storages: tuple[Storage, ...] = (qkv, output, gate_up, down, "int8")
    for row in QUANTISATIONS:
        if row.storages == storages:
            return row
    return Quantisation(_MIXED + "".join(str(INTEGER_BITS[stored]) for stored in storages), *storages)


def interface_key(dims: ArchitectureDims, quantisation: Quantisation) -> str:
    """What a package and an artefact must have in common to work together."""
    text = json.dumps([dims.as_dict(), quantisation.storages, LAYOUT_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
