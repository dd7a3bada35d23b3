"""Gives every GPU thread its own registers: the last step before CUDA code is generated.

Kernels in `compiler.kernels.gpu` index what a thread keeps for itself by the thread: a buffer of scope "local" has the
threads of a block as its first axis. On a GPU each thread has its own copy anyway, so that axis goes. Counterpart:
`serialise_threads` keeps the axis, which is what makes the same kernels mean the same when one thread runs them all.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad


def own_registers(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with the first axis of every local buffer dropped, wherever it is read or written."""
    smaller: dict[Any, Any] = {}

    def find(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        buffer = allocation.buffer
        if buffer.scope() == "local":
            shape = list(buffer.shape)[1:]
            smaller[buffer] = tirx.decl_buffer(shape, buffer.dtype, buffer.name, scope="local")
        return allocation

    def replace_allocation(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        return tirx.AllocBuffer(smaller[allocation.buffer]) if allocation.buffer in smaller else allocation

    def replace_load(load: TensorLoad) -> TensorLoad:
        if load.source not in smaller:
            return load
        return tirx.BufferLoad(smaller[load.source], list(load.indices)[1:])

    def replace_store(store: tirx.BufferStore) -> tirx.BufferStore:
        if store.buffer not in smaller:
            return store
        return tirx.BufferStore(smaller[store.buffer], store.value, list(store.indices)[1:])

    tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, find))
    body = tvm_ffi.structural_map(
        function.body,
        [
            (tirx.AllocBuffer, replace_allocation),
            (TensorLoad, replace_load),
            (tirx.BufferStore, replace_store),
        ],
    )
    return function.with_body(body)
