"""Compiles the functions of a GPU artefact: machine code for the GPU inside a library for its host, or a simulation of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import tvm

from compiler.contract import describe_arguments
from compiler.cuda_toolchain import cuda_codegen
from compiler.kernels.gpu.module import gpu_function_facts, gpu_functions
from compiler.models.spec import ArchitectureDims
from compiler.passes.meet_after_phases import meet_after_phases
from compiler.passes.own_registers import own_registers
from compiler.passes.serialise_threads import serialise_threads
from compiler.quantisation import Quantisation
from compiler.targets.gpu import GpuTarget

# TVM's passes without those that move buffers and add barriers: the kernels have their own.
_PIPELINE = "tirx"


def compile_gpu(dims: ArchitectureDims, quantisation: Quantisation, target: GpuTarget) -> tuple[Any, dict[str, Any]]:
    """TVM's executable, and what the manifest says of it beyond what it says of any artefact.

    Raises:
        BuildError: no CUDA compiler, or it does not compile for the target.
    """
    functions = gpu_functions(dims, quantisation)
    facts = gpu_function_facts(dims)
    for name, function in functions.items():
        facts[name]["arguments"] = describe_arguments(function)
    if target.sm is None:
        module = tvm.IRModule({name: serialise_threads(function) for name, function in functions.items()})
        compiled = tvm.compile(module, target=tvm.target.Target(target.host.llvm()), tir_pipeline=_PIPELINE)
        return compiled, {"functions": facts, "device": "simulated-gpu"}
    module = tvm.IRModule({name: own_registers(meet_after_phases(function)) for name, function in functions.items()})
    with cuda_codegen(target) as resources:
        compiled = tvm.compile(
            module, target=tvm.target.Target(target.cuda(), host=target.host.llvm()), tir_pipeline=_PIPELINE
        )
    kernels = [asdict(each) for each in resources]
    return compiled, {"functions": facts, "device": "cuda", "gpu": target.capability, "kernels": kernels}
