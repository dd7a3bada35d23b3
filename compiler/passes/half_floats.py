"""Conversions between float16 and float32 become integer arithmetic, for a CPU without F16C.

There LLVM would call a conversion function once per lane. Results are those of the instruction, bit for bit: ties to
even, subnormals, infinities, and the payload of a NaN.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx

_HALF_INFINITY = 0x7C00
_INFINITY = 0x7F800000
_TOO_LARGE = 0x47800000  # 65536: from here on, a half float is infinite
_SMALLEST_NORMAL = 0x38800000  # 2^-14
_EXPONENTS = 0x38000000  # 127 - 15, the distance of the exponents' biases, as bits of a float32


def convert_halves_by_integers(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Casts float16 <-> float32, scalar and vector, without an instruction for them."""

    def change(cast: tirx.Cast) -> ir.Expr:
        source, result = cast.value.ty.dtype, cast.ty.dtype
        if _is_float(source, 16) and _is_float(result, 32):
            return _widen(cast.value, source.lanes)
        if _is_float(source, 32) and _is_float(result, 16):
            return _narrow(cast.value, source.lanes)
        return cast

    return tvm_ffi.structural_map(function, (tirx.Cast, change))


def _is_float(dtype: Any, bits: int) -> bool:
    return bool(str(dtype).partition("x")[0] == f"float{bits}")


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


class _Lanes:
    """Constants and operators of int32 vectors of one length."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def bits(self, value: int) -> ir.Expr:
        return self._splat(tirx.IntImm("int32", value))

    def number(self, value: float) -> ir.Expr:
        return self._splat(tirx.FloatImm("float32", value))

    def _splat(self, scalar: ir.Expr) -> ir.Expr:
        return scalar if self.lanes == 1 else tirx.Broadcast(scalar, self.lanes)

    def as_type(self, dtype: str, value: ir.Expr) -> ir.Expr:
        return tirx.reinterpret(_typed(dtype, self.lanes), value)

    def cast(self, dtype: str, value: ir.Expr) -> ir.Expr:
        return tirx.Cast(_typed(dtype, self.lanes), value)

    def variable(self, name: str) -> tirx.Var:
        return tirx.Var(name, _typed("int32", self.lanes))


def _widen(half: ir.Expr, lanes: int) -> ir.Expr:
    """Exponent and mantissa move to their places; a product with a power of two mends the exponent, subnormals included."""
    v = _Lanes(lanes)
    h = v.variable("half_bits")
    shifted = tirx.shift_left(tirx.bitwise_and(h, v.bits(0x7FFF)), v.bits(13))
    scaled = v.as_type("int32", tirx.Mul(v.as_type("float32", shifted), v.number(2.0**112)))
    special = tirx.GE(shifted, v.bits(_HALF_INFINITY << 13))
    whole = tirx.Select(special, tirx.bitwise_or(shifted, v.bits(_INFINITY)), scaled)
    quiet = tirx.Select(tirx.GT(shifted, v.bits(_HALF_INFINITY << 13)), v.bits(0x400000), v.bits(0))
    sign = tirx.shift_left(tirx.bitwise_and(h, v.bits(0x8000)), v.bits(16))
    result = v.as_type("float32", tirx.bitwise_or(tirx.bitwise_or(whole, quiet), sign))
    return tirx.Let(h, v.cast("int32", v.as_type("uint16", half)), result)


def _narrow(whole: ir.Expr, lanes: int) -> ir.Expr:
    """Three cases by magnitude: no number or too large; normal, rounded as an integer; subnormal, rounded by an addition."""
    v = _Lanes(lanes)
    b, m = v.variable("float_bits"), v.variable("magnitude")
    payload = tirx.bitwise_or(v.bits(0x7E00), tirx.shift_right(tirx.bitwise_and(m, v.bits(0x3FF << 13)), v.bits(13)))
    special = tirx.Select(tirx.GT(m, v.bits(_INFINITY)), payload, v.bits(_HALF_INFINITY))
    odd = tirx.bitwise_and(tirx.shift_right(m, v.bits(13)), v.bits(1))
    rounded = tirx.Add(tirx.Add(tirx.Sub(m, v.bits(_EXPONENTS)), v.bits(0xFFF)), odd)
    normal = tirx.shift_right(rounded, v.bits(13))
    # One half has the last bit of a subnormal half float as its own last bit.
    summed = v.as_type("int32", tirx.Add(v.as_type("float32", m), v.number(0.5)))
    subnormal = tirx.Sub(summed, v.as_type("int32", v.number(0.5)))
    small = tirx.Select(tirx.LT(m, v.bits(_SMALLEST_NORMAL)), subnormal, normal)
    bits = tirx.Select(tirx.GE(m, v.bits(_TOO_LARGE)), special, small)
    sign = tirx.bitwise_and(tirx.shift_right(b, v.bits(16)), v.bits(0x8000))
    half = v.as_type("float16", v.cast("uint16", tirx.bitwise_or(bits, sign)))
    magnitude = tirx.bitwise_and(b, v.bits(0x7FFFFFFF))
    return tirx.Let(b, v.as_type("int32", whole), tirx.Let(m, magnitude, half))
