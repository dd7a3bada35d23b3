"""What an artefact's manifest says of its functions' arguments, read off the TIR that is compiled.

Counterpart: the node's `artefact_check`, and whoever writes another runtime. Reads functions and changes none.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

# What each function leaves its results in; everything else that it is handed is read, or scratch.
OUTPUTS = {"embed": ("h",), "blocks": ("h", "keys", "values"), "head": ("logits",), "clock": ("out",)}


def describe_arguments(function: tirx.PrimFunc) -> list[dict[str, Any]]:
    """Name, dtype and shape of every argument in order; a size is a number or the name of a symbol, a scalar has no shape."""
    return [_describe(argument) for argument in function.params]


def _describe(argument: Any) -> dict[str, Any]:
    is_scalar = not hasattr(argument, "shape")
    if is_scalar:
        return {"name": argument.name, "dtype": str(argument.ty.dtype), "shape": None}
    return {
        "name": argument.name,
        "dtype": str(argument.dtype),
        "shape": [int(size) if isinstance(size, tirx.IntImm) else str(size) for size in argument.shape],
    }
