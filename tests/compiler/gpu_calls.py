"""Runs GPU kernels on this machine's CPU, their threads one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
import tvm_ffi

from compiler.passes.serialise_threads import serialise_threads
from compiler.targets.gpu import SIMULATED_GPU


def compile_simulated(function: Any, backwards: bool = False) -> Callable[..., None]:
    """`function`, to be called with numbers and with arrays of `kernel_calls.aligned`."""
    name = str(function.attrs["global_symbol"])
    module = tvm.IRModule({name: serialise_threads(function, backwards)})
    compiled = tvm.compile(module, target=tvm.target.Target(SIMULATED_GPU.host.llvm()), tir_pipeline="tirx")[name]

    def call(*arguments: Any) -> None:
        compiled(*(tvm_ffi.from_dlpack(value) if isinstance(value, np.ndarray) else value for value in arguments))

    return call
