"""The quantisations that the compiler offers, and the name of the interface between packages and artefacts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from compiler.errors import QuantisationError
from compiler.models.spec import ArchitectureDims
from compiler.packing import LAYOUT_VERSION


@dataclass(frozen=True, slots=True)
class Quantisation:
    """Bits of block weights and of the embedding and head; 0 is unquantised float32."""

    name: str
    block_bits: int
    text_bits: int


QUANTISATIONS = (Quantisation("int4", 4, 8), Quantisation("int8", 8, 8), Quantisation("f32", 0, 0))


def find_quantisation(name: str) -> Quantisation:
    """The quantisation called `name`.

    Raises:
        QuantisationError: no such one.
    """
    for row in QUANTISATIONS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in QUANTISATIONS)
    raise QuantisationError(f"unknown quantisation '{name}'; known ones: {known}")


def interface_key(dims: ArchitectureDims, quantisation: str) -> str:
    """What a package and an artefact must have in common to work together."""
    text = json.dumps([dims.as_dict(), quantisation, LAYOUT_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
