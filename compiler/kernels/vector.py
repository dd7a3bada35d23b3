"""Sixteen-lane building blocks of the kernels. Everything here expands inside a TVMScript body.

Sums never mix a product and an addition that LLVM may or may not contract: a product that is added is always an
explicit `fma`, so that every copy of an expression rounds the same way, on every target that fuses.
"""

from __future__ import annotations

from tvm.script import tirx as T

LANES = 16
GROUP = 32  # columns that share one weight scale, and one activation scale


def lanes(offset, count=LANES):
    """`count` consecutive elements from `offset`."""
    return T.ramp(offset, 1, count)


def splat(value, count=LANES):
    """The same scalar in every lane."""
    return T.broadcast(value, count)


def f32(value):
    """A float32 constant."""
    return T.float32(value)


def fma(a, b, c):
    """a*b + c, rounded once."""
    return T.call_llvm_pure_intrin("float32x16", "llvm.fma", a, b, c)


def maximum(a, b):
    """Lane-wise maximum."""
    return T.call_llvm_pure_intrin("float32x16", "llvm.maxnum", a, b)


def minimum(a, b):
    """Lane-wise minimum."""
    return T.call_llvm_pure_intrin("float32x16", "llvm.minnum", a, b)


def absolute(a):
    """Lane-wise magnitude."""
    return T.call_llvm_pure_intrin("float32x16", "llvm.fabs", a)


def nearest(a):
    """Lane-wise rounding to integers, ties to even."""
    return T.call_llvm_pure_intrin("float32x16", "llvm.rint", a)


def floats(count):
    """Name of the type of `count` float32 lanes."""
    return "float32" if count == 1 else f"float32x{count}"


def widen(a, count=LANES):
    """`count` lanes of float16 to float32."""
    return T.cast(a, floats(count))


def widen_bf16(a, count=LANES):
    """`count` upper halves of float32, as uint16, to float32."""
    whole = T.cast(a, floats(count).replace("float", "uint"))
    return T.reinterpret(floats(count), T.shift_left(whole, T.uint32(16) if count == 1 else splat(T.uint32(16), count)))


def largest_magnitude(a):
    """Largest |lane|. Magnitudes order like their bits; integer reductions become shuffle trees, float ones do not."""
    bits = T.bitwise_and(T.reinterpret("int32x16", a), splat(T.int32(0x7FFFFFFF)))
    return T.reinterpret("float32", T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", bits))


def _order(bits, ones, shift):
    """Bits that order as integers like the floats they came from; its own inverse."""
    return T.bitwise_xor(bits, T.bitwise_and(T.shift_right(bits, shift), ones))


def largest(a):
    """Largest lane, reduced as integers."""
    ordered = _order(T.reinterpret("int32x16", a), splat(T.int32(0x7FFFFFFF)), splat(T.int32(31)))
    top = T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", ordered)
    return T.reinterpret("float32", _order(top, T.int32(0x7FFFFFFF), T.int32(31)))


def total(a):
    """Sum of the lanes: halves are added to each other until two lanes are left, then these."""
    for count in (8, 4, 2):
        a = T.vectorlow(floats(count), a) + T.vectorhigh(floats(count), a)
    return T.call_llvm_pure_intrin("float32", "llvm.vector.reduce.fadd", f32(0), a)


def integer_total(a):
    """Sum of int32 lanes."""
    return T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.add", a)


def low_nibbles(words):
    """The low nibble of every byte."""
    return T.bitwise_and(words, splat(T.uint32(0x0F0F0F0F)))


def high_nibbles(words):
    """The high nibble of every byte."""
    return T.bitwise_and(T.shift_right(words, splat(T.uint32(4))), splat(T.uint32(0x0F0F0F0F)))


def prefetch(address):
    """Ask for a cache line that will be read soon; harmless past the end of a buffer."""
    return T.call_intrin("void", "tirx.prefetch", address, T.int32(0), T.int32(3), T.int32(1))


@T.inline
def start_clock(clock, region, thread):
    """Thread 0 takes the clock's ticks from a region's entry; `stop_clock` adds them back, later."""
    if thread == 0:
        clock[region] = clock[region] - T.call_llvm_intrin("int64", "llvm.readcyclecounter")


@T.inline
def stop_clock(clock, region, thread):
    """Counterpart of `start_clock`."""
    if thread == 0:
        clock[region] = clock[region] + T.call_llvm_intrin("int64", "llvm.readcyclecounter")


def inverse_root(squares, width, eps):
    """1 / sqrt(squares / width + eps), scalar: what an RMS norm multiplies with."""
    return f32(1) / T.sqrt(T.call_llvm_pure_intrin("float32", "llvm.fma", squares, f32(1.0 / width), f32(eps)))


_LOG2E = 1.4426950408889634
# exp2 on [-0.5, 0.5]: Taylor terms ln(2)^k / k!, the first one left out is 1.2e-7.
_EXP2 = (0.00015403530, 0.0013333558, 0.0096181291, 0.0555041087, 0.2402265070, 0.6931471806, 1.0)


@T.inline
def store_exp(dst, offset, x):
    """dst[offset : offset+16] = exp(x), x held to [-87, 88]."""
    ex = T.alloc_buffer((16,), "float32")
    en = T.alloc_buffer((16,), "float32")
    ep = T.alloc_buffer((16,), "float32")
    ex[lanes(0)] = minimum(maximum(x, splat(f32(-87.0))), splat(f32(88.0)))
    en[lanes(0)] = nearest(ex[lanes(0)] * splat(f32(_LOG2E)))
    ex[lanes(0)] = fma(ex[lanes(0)], splat(f32(_LOG2E)), splat(f32(0)) - en[lanes(0)])
    ep[lanes(0)] = fma(splat(f32(_EXP2[0])), ex[lanes(0)], splat(f32(_EXP2[1])))
    ep[lanes(0)] = fma(ep[lanes(0)], ex[lanes(0)], splat(f32(_EXP2[2])))
    ep[lanes(0)] = fma(ep[lanes(0)], ex[lanes(0)], splat(f32(_EXP2[3])))
    ep[lanes(0)] = fma(ep[lanes(0)], ex[lanes(0)], splat(f32(_EXP2[4])))
    ep[lanes(0)] = fma(ep[lanes(0)], ex[lanes(0)], splat(f32(_EXP2[5])))
    ep[lanes(0)] = fma(ep[lanes(0)], ex[lanes(0)], splat(f32(_EXP2[6])))
    dst[lanes(offset)] = T.reinterpret(
        "float32x16",
        T.reinterpret("int32x16", ep[lanes(0)]) + T.shift_left(T.cast(en[lanes(0)], "int32x16"), splat(T.int32(23))),
    )
