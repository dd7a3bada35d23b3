"""How TIR names LLVM's intrinsics: calls of one of two operators, whose first argument is the intrinsic's number."""

from __future__ import annotations

from functools import cache

from tvm import ir, tirx
from tvm.target import codegen

_OPERATORS = ("tirx.call_llvm_pure_intrin", "tirx.call_llvm_intrin")


@cache
def intrinsic_id(name: str) -> int:
    """LLVM's number of an intrinsic."""
    return int(codegen.llvm_lookup_intrinsic_id(name))


def is_intrinsic(call: ir.Call, name: str) -> bool:
    """Whether `call` is one of the intrinsic called `name`."""
    if not isinstance(call.op, ir.Op) or call.op.name not in _OPERATORS:
        return False
    number = call.args[0]
    return isinstance(number, tirx.IntImm) and int(number) == intrinsic_id(name)
