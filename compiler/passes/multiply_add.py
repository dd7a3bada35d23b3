"""Fused multiply-adds become a product and a sum, for a CPU without the instruction.

There LLVM would call the C library once per lane to round only once. The pair rounds twice, always in this order: bits
differ from those of targets that fuse, but not from one batch, cut or thread count to another.
"""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

from compiler.passes.intrinsics import is_intrinsic


def split_multiply_add(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`llvm.fma(a, b, c)` -> `a*b + c`."""

    def change(call: ir.Call) -> ir.Expr:
        if not is_intrinsic(call, "llvm.fma"):
            return call
        left, right, addend = call.args[1:]
        return tirx.Add(tirx.Mul(left, right), addend)

    return tvm_ffi.structural_map(function, (ir.Call, change))
