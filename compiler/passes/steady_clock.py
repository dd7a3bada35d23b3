"""The cycle counter becomes the steady counter: on ARM a user process may not read cycles, and is killed if it tries."""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

from compiler.passes.intrinsics import intrinsic_id, is_intrinsic


def read_steady_clock(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`llvm.readcyclecounter` -> `llvm.readsteadycounter`. Ticks differ in length; who reads them measures that."""
    steady = tirx.IntImm("uint32", intrinsic_id("llvm.readsteadycounter"))

    def change(call: ir.Call) -> ir.Call:
        if not is_intrinsic(call, "llvm.readcyclecounter"):
            return call
        return tirx.call_intrin(call.ty, call.op, steady, *call.args[1:])

    return tvm_ffi.structural_map(function, (ir.Call, change))
