"""Lets the threads of a GPU block wait for each other after every phase, so that no kernel can forget to.

A phase is a loop over "threadIdx.x" (see `serialise_threads`). A phase reads what earlier ones wrote to shared memory.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx


def meet_after_phases(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with a barrier of the block after every loop over its threads."""

    def add_barrier(loop: tirx.For) -> tirx.Stmt:
        if loop.thread_binding is None or not loop.thread_binding.thread_tag.startswith("threadIdx"):
            return loop
        return tirx.SeqStmt([loop, tirx.Evaluate(tirx.op.tvm_storage_sync("shared"))])

    return function.with_body(tvm_ffi.structural_map(function.body, (tirx.For, add_barrier)))
