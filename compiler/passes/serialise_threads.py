"""Turns a GPU kernel into one that a CPU runs, to check on the CPU what the kernel computes.

Kernels in `compiler.kernels.gpu` are written as phases: loops over the threads of a block, after each of which the block
meets (`meet_after_phases`). No thread reads, within a phase, what another thread writes in it. So a phase may run its
threads one after the other, blocks too, and memory of any scope is plain memory. Counterpart: `own_registers`.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Op, TensorLoad


def serialise_threads(function: tirx.PrimFunc, backwards: bool = False) -> tirx.PrimFunc:
    """`function` with loops in place of blocks and threads, plain buffers, and LLVM's name for a fused multiply-add.

    `backwards` runs the last block and thread first. A kernel whose threads talk within a phase, or whose blocks talk at
    all, then gives other results: that is how tests find out.
    """
    plain: dict[Any, Any] = {}

    def find(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        buffer = allocation.buffer
        plain[buffer] = tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name)
        return allocation

    def replace_allocation(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        return tirx.AllocBuffer(plain[allocation.buffer])

    def replace_load(load: TensorLoad) -> TensorLoad:
        return tirx.BufferLoad(plain[load.source], list(load.indices)) if load.source in plain else load

    def replace_store(store: tirx.BufferStore) -> tirx.BufferStore:
        if store.buffer not in plain:
            return store
        return tirx.BufferStore(plain[store.buffer], store.value, list(store.indices))

    def replace_loop(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.THREAD_BINDING:
            return loop
        body = loop.body
        if backwards:
            mirrored = loop.extent - 1 - loop.loop_var
            body = tvm_ffi.structural_map(body, (tirx.Var, lambda var: mirrored if var.same_as(loop.loop_var) else var))
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, body)

    def replace_call(call: Call) -> Call:
        if call.op.same_as(Op.get("tirx.call_pure_extern")) and call.args[0].value == "fmaf":
            return tirx.call_llvm_pure_intrin("float32", "llvm.fma", *call.args[1:])
        return call

    tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, find))
    body = tvm_ffi.structural_map(
        function.body,
        [
            (tirx.AllocBuffer, replace_allocation),
            (TensorLoad, replace_load),
            (tirx.BufferStore, replace_store),
            (tirx.For, replace_loop),
            (Call, replace_call),
        ],
    )
    return function.with_body(body)
