"""Which passes a target needs, in order. The counterpart of `kernels`, which know of none of this."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import tirx

from compiler.passes.half_floats import convert_halves_by_integers
from compiler.passes.multiply_add import split_multiply_add
from compiler.passes.steady_clock import read_steady_clock
from compiler.targets.row import CpuTarget

Pass = Callable[[tirx.PrimFunc], tirx.PrimFunc]


def passes_of(target: CpuTarget) -> tuple[Pass, ...]:
    """The passes for `target`, in the order in which they run."""
    if target.arch == "aarch64":
        return (read_steady_clock,)
    halves = () if "f16c" in target.features else (convert_halves_by_integers,)
    fused = () if "fma" in target.features else (split_multiply_add,)
    return (*halves, *fused)


def adapt(module: tvm.IRModule, target: CpuTarget) -> tvm.IRModule:
    """`module` as `target` can run it well; the same object where nothing has to change."""
    functions = dict(module.functions.items())
    for change in passes_of(target):
        functions = {name: change(function) for name, function in functions.items()}
    return tvm.IRModule(functions)
