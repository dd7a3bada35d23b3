"""Four unsigned bytes times four signed bytes, summed into each of 16 lanes of 32 bits: one way per instruction set.

All ways give the same integers. A way is a pair, for weights of a nibble and of a byte. Which one a target takes is
`dot` of its row.
"""

from __future__ import annotations

from tvm.script import tirx as T

from compiler.kernels.vector import high_nibbles, low_nibbles, splat


def _split(value, dtype, lanes, pieces):
    """`lanes` of `dtype` ("int32", "uint8") in that many vectors of equal length."""
    if pieces == 1:
        return [value]
    halves = (half(f"{dtype}x{lanes // 2}", value) for half in (T.vectorlow, T.vectorhigh))
    return [piece for half in halves for piece in _split(half, dtype, lanes // 2, pieces // 2)]


def _join(pieces, lanes=16):
    """Vectors of int32 as one of `lanes`."""
    if len(pieces) == 1:
        return pieces[0]
    middle = len(pieces) // 2
    return T.vectorcombine(f"int32x{lanes}", _join(pieces[:middle], lanes // 2), _join(pieces[middle:], lanes // 2))


def _by_pieces(dot, pieces):
    """A way over whole words, from `dot(acc, weights, x)` over vectors of a `pieces`-th of their length."""

    def dot_words(acc, words, x4):
        x = _repeated(x4, 16 // pieces)
        accs, weights = _split(acc, "int32", 16, pieces), _split(T.reinterpret("uint8x64", words), "uint8", 64, pieces)
        return _join([dot(part, bytes_, x) for part, bytes_ in zip(accs, weights, strict=True)])

    return dot_words


def _repeated(x4, count=16):
    """Four signed bytes, `count` times."""
    return T.reinterpret(f"int8x{count * 4}", splat(T.reinterpret("int32", x4), count))


def _vpdpbusd(bits):
    """One instruction of AVX-512 VNNI, or two of AVX-VNNI."""

    def dot(acc, weights, x):
        return T.call_llvm_pure_intrin(f"int32x{bits // 32}", f"llvm.x86.avx512.vpdpbusd.{bits}", acc, weights, x)

    words = _by_pieces(dot, 512 // bits)
    return {4: words, 8: words}


_PMADDUBSW = {
    512: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    256: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    128: ("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
}


def _pmaddubsw(bits):
    """Pairs of products in 16 bits, which hold those of nibbles, then pairs of pairs."""
    products, pairs = _PMADDUBSW[bits]

    def dot(acc, weights, x):
        two = T.call_llvm_pure_intrin(f"int16x{bits // 16}", products, weights, x)
        return acc + T.call_llvm_pure_intrin(f"int32x{bits // 32}", pairs, two, splat(T.int16(1), bits // 16))

    return _by_nibbles(_by_pieces(dot, 512 // bits))


def _by_nibbles(dot):
    """A way for nibbles, and for bytes: their nibbles one after the other."""

    def dot_bytes(acc, words, x4):
        high = dot(splat(T.int32(0)), high_nibbles(words), x4)
        return dot(acc, low_nibbles(words), x4) + T.shift_left(high, splat(T.int32(4)))

    return {4: dot, 8: dot_bytes}


def _portable(acc, words, x4):
    """For any CPU. Both factors fit 16 bits, which lets LLVM use a cheap multiply."""
    x = splat(T.reinterpret("int32", x4))
    w = T.reinterpret("int32x16", words)
    for byte in range(4):
        column = T.shift_right(T.shift_left(x, splat(T.int32(24 - 8 * byte))), splat(T.int32(24)))
        weight = T.bitwise_and(T.shift_right(w, splat(T.int32(8 * byte))), splat(T.int32(255)))
        acc = acc + column * weight
    return acc


def _usdot(acc, weights, x):
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.usdot.v4i32.v16i8", acc, weights, x)


def _sdot(acc, weights, x):
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, weights, x)


def _smull(acc, weights, x):
    """Sums of two products of nibbles fit 16 bits; their pairs are widened into the sum."""
    w = T.reinterpret("int8x16", weights)
    low, high = (
        T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", half("int8x8", w), half("int8x8", x))
        for half in (T.vectorlow, T.vectorhigh)
    )
    pairs = T.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.addp.v8i16", low, high)
    return acc + T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", pairs)


def _sdot_bytes(acc, words, x4):
    """Bytes less 128 are signed; what that takes away, 128 times the sum of x, is the same in every lane."""
    signed = T.bitwise_xor(words, splat(T.uint32(0x80808080)))
    x, halves = _repeated(x4, 4), splat(T.int8(64), 16)
    taken = _sdot(_sdot(splat(T.int32(0), 4), halves, x), halves, x)
    return _SDOT(acc, signed, x4) + _join([taken] * 4)


_USDOT, _SDOT = _by_pieces(_usdot, 4), _by_pieces(_sdot, 4)
# By a row's `dot`; the keys of each way are the bits of a weight.
DOTS = {
    **{f"vpdpbusd-{bits}": _vpdpbusd(bits) for bits in (512, 256)},
    **{f"pmaddubsw-{bits}": _pmaddubsw(bits) for bits in (512, 256, 128)},
    "usdot": {4: _USDOT, 8: _USDOT},
    "sdot": {4: _SDOT, 8: _sdot_bytes},
    "smull": _by_nibbles(_by_pieces(_smull, 4)),
    "portable": {4: _portable, 8: _portable},
}
