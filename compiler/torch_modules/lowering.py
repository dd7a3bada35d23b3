"""Partitions to scheduled TIR: torch.export -> Relax -> weights' layouts taken out -> fused -> scheduled.

Whatever a partition computes from its weights alone (a transposed matrix above all) becomes a function of its own,
which the package's writer runs once; what is left takes the results as arguments. Nothing here depends on the values of
weights, so partitions of one structure share what is made here.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter
from tvm.target.codegen import llvm_get_vector_width

from compiler.errors import ModelFileError
from compiler.targets.row import CpuTarget
from compiler.torch_modules.cuts import Partition
from compiler.torch_modules.schedules import VectorUnit, schedule_module

_MAIN = "main"
_CHANNELS_LAST = {"relax.nn.conv2d": ["NHWC", "HWIO"]}
"""Layouts of a convolution's input and kernel in which it is a product of matrices."""
_TRANSFORM = "main_transform_params"


@dataclass(frozen=True)
class LoweredFunction:
    """One structure as Relax: `run(x, *packed)`, and `pack(weights)`, which gives the packed tensors of one partition."""

    input_shape: tuple[int, ...]
    run: relax.Function
    pack: tvm.IRModule
    packed: tuple[tuple[str, tuple[int, ...]], ...]


def import_partitions(name: str, partitions: Sequence[Partition]) -> dict[str, LoweredFunction]:
    """Structure -> Relax, for every structure among the partitions.

    Raises:
        ModelFileError: operators that Relax cannot take over; all of them are named.
    """
    exported: dict[str, torch.export.ExportedProgram] = {}
    missing: set[str] = set()
    known = ExportedProgramImporter().convert_map
    for each in partitions:
        if each.structure in exported:
            continue
        example = torch.zeros(each.input_shape)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(each.graph.eval(), (example,), strict=False).run_decompositions()
        exported[each.structure] = program
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        missing |= {_operator(node) for node in calls} - set(known)
    if missing:
        raise ModelFileError(
            f"'{name}' uses operators that cannot be compiled: {', '.join(sorted(missing))}; replace them in the module"
        )
    return {structure: _import(name, program) for structure, program in exported.items()}


def lower_functions(functions: Sequence[relax.Function], target: CpuTarget) -> tvm.IRModule:
    """One module with functions f0, f1, ... ready for code generation."""
    builder = tvm.IRModule({f"f{index}": _named(each, f"f{index}") for index, each in enumerate(functions)})
    described = tvm.target.Target(target.llvm())
    with described:
        module = _fusion(builder)
    return schedule_module(module, vector_unit(target))


def vector_unit(target: CpuTarget) -> VectorUnit:
    """What the target's code generator takes registers to be; AVX-512 and NEON have 32 of them, older x86 has 16."""
    width = llvm_get_vector_width(tvm.target.Target(target.llvm()))
    return VectorUnit(max(4, width // 32), 32 if target.arch == "aarch64" or width >= 512 else 16)


def _operator(node: torch.fx.Node) -> str:
    return str(node.target.__name__)


def _import(name: str, program: torch.export.ExportedProgram) -> LoweredFunction:
    try:
        module = from_exported_program(
            program, keep_params_as_input=True, unwrap_unit_return_tuple=True, run_ep_decomposition=False
        )
    except (ValueError, TypeError, AssertionError, NotImplementedError, tvm.error.TVMError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelFileError(f"'{name}' uses an operator in a way that cannot be compiled ({reason})") from error
    module[_MAIN] = module[_MAIN].without_attr("params")
    module = relax.transform.LiftTransformParams()(_channels_last(module))
    run = module[_MAIN]
    packed = tuple((str(each.ty.dtype), tuple(int(size) for size in each.ty.shape)) for each in run.params[1:])
    pack = tvm.IRModule({_TRANSFORM: module[_TRANSFORM]})
    shape = tuple(int(size) for size in run.params[0].ty.shape)
    return LoweredFunction(shape, run.without_attr("num_input"), pack, packed)


def _channels_last(module: tvm.IRModule) -> tvm.IRModule:
    """Two-dimensional convolutions with their channels together; the pass fails on some functions that have none."""
    operators: set[str] = set()

    def note(expression: relax.Expr) -> None:
        if isinstance(expression, relax.Call) and isinstance(expression.op, tvm.ir.Op):
            operators.add(str(expression.op.name))

    relax.analysis.post_order_visit(module[_MAIN], note)
    return relax.transform.ConvertLayout(_CHANNELS_LAST)(module) if operators & set(_CHANNELS_LAST) else module


def _named(function: relax.Function, name: str) -> relax.Function:
    return function.with_attr("global_symbol", name)


_fusion = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
)
