"""Building blocks of GPU kernels, and the form in which kernels are written.

A kernel is a nest of loops bound to "blockIdx.*" around phases: loops bound to "threadIdx.x", all of one length. In a
phase no thread reads what another writes; after it all threads of the block meet (`compiler.passes.meet_after_phases`).
What a thread keeps across phases is a buffer of scope "local" with the threads as its first axis
(`compiler.passes.own_registers`); what threads hand over is a buffer of scope "shared". Control flow around phases
depends on arguments alone, never on what a phase wrote. So the kernel means the same when one thread runs all loops
one after the other (`compiler.passes.serialise_threads`).

Products that are added are always an explicit fused multiply-add: every copy of an expression rounds the same way.
"""

from __future__ import annotations

from tvm.script import tirx as T

WARP = 32
THREADS = 256  # of kernels that go over whole rows
JOINED = 16  # parts in which the values of a block's threads are joined


def fma(a, b, c):
    """a*b + c, rounded once."""
    return T.call_pure_extern("float32", "fmaf", a, b, c)


def f32(value):
    """A float32 constant."""
    return T.float32(value)


def add(a, b):
    """The sum: what `join` makes of two values."""
    return a + b


def as_float(bits):
    """The float32 that an int32 or uint32 holds the bits of."""
    return T.reinterpret("float32", bits)


def whole(byte):
    """A uint32 below 2^23 as a float32: an or and a subtraction, where a conversion takes four times as long."""
    return as_float(T.bitwise_or(byte, T.uint32(0x4B000000))) - f32(8388608)


def join(threads: int, fold, empty: float):
    """Phases that fold one value of every thread into one, in an order that `threads` alone fixes.

    `shared` is float32 [threads + 1]: every thread has put its value at its own place, and finds the result behind all.
    """

    @T.inline
    def run(shared, own):
        for t in T.thread_binding(threads, "threadIdx.x"):
            if t < JOINED:
                own[t, 0] = f32(empty)
                for i in T.serial(threads // JOINED):
                    own[t, 0] = fold(own[t, 0], shared[t * (threads // JOINED) + i])
        for t in T.thread_binding(threads, "threadIdx.x"):
            if t < JOINED:
                shared[t] = own[t, 0]
        for t in T.thread_binding(threads, "threadIdx.x"):
            if t == 0:
                own[t, 0] = f32(empty)
                for i in T.serial(JOINED):
                    own[t, 0] = fold(own[t, 0], shared[i])
                shared[threads] = own[t, 0]

    return run
