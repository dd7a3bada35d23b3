"""Compiles the artefact of one (architecture, quantisation, target).

The only module outside `kernels` that imports TVM, and therefore imported only where something has to be compiled.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import tvm

from compiler.contract import OUTPUTS, describe_arguments
from compiler.fatbin import check_fatbin
from compiler.gpu_artefact import compile_gpu
from compiler.instruction_families import count_families
from compiler.kernels import activations, blocks, linear, text
from compiler.kernels.expansion import quick_expansion
from compiler.linking import link_for
from compiler.models.spec import ArchitectureDims
from compiler.passes.pipeline import adapt
from compiler.quantisation import Quantisation, interface_key
from compiler.targets.choice import require_cpu
from compiler.targets.gpu import GpuTarget
from compiler.targets.row import CompileTarget, CpuTarget
from mec_platform.content_store.entries import write_manifest
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS

LIBRARY = "lib.so"
_ROOM_BYTES = 16 << 20  # object files and library of the largest target take a few megabytes


def lower(dims: ArchitectureDims, quantisation: Quantisation, target: CpuTarget) -> tuple[tvm.IRModule, dict[str, Any]]:
    """The functions as TIR, and what the manifest says of their arguments."""
    matrices = {
        name: linear.weight_format(getattr(quantisation, name), target)
        for name in ("qkv", "output", "gate_up", "down", "text")
    }
    form = activations.plain if quantisation.is_float else activations.quantised
    acts = form(dims)
    with quick_expansion():
        module = tvm.IRModule(
            {
                "embed": text.embed_function(dims, matrices["text"]),
                "blocks": blocks.blocks_function(dims, matrices, acts, target.tile_queries),
                "head": text.head_function(dims, matrices["text"], acts),
                "clock": blocks.clock_function(),
            }
        )
    functions: dict[str, dict[str, Any]] = {
        "embed": {"weights": list(text.EMBED_WEIGHTS), "scratch": []},
        "blocks": {
            "weights": blocks.block_weights(dims),
            "scratch": blocks.blocks_scratch(dims, acts, target.tile_queries),
        },
        "head": {"weights": list(text.HEAD_WEIGHTS), "scratch": text.head_scratch(dims, acts)},
        "clock": {"weights": [], "scratch": []},
    }
    for name, facts in functions.items():
        facts |= {"arguments": describe_arguments(module[name]), "outputs": list(OUTPUTS[name])}
    return module, functions


def write_artefact(
    folder: Path,
    dims: ArchitectureDims,
    quantisation: Quantisation,
    target: CompileTarget,
    source: str,
    *,
    count_instructions: bool = False,
) -> None:
    """Fills `folder` with lib.so and its manifest; `source` is the hash of the code that it is compiled from.

    `count_instructions` has the manifest say what the kernels are made of, for a seventh to a third of the time.

    Raises:
        BuildError: no linker or CUDA compiler, or it fails.
    """
    require_room(folder)
    if isinstance(target, GpuTarget):
        host = target.host
        compiled, facts = compile_gpu(dims, quantisation, target)
    else:
        host = require_cpu(target)
        module, functions = lower(dims, quantisation, host)
        compiled = tvm.compile(adapt(module, host), target=tvm.target.Target(host.llvm()))
        facts = {"functions": functions, "tiling": host.tiling()}
    if count_instructions:
        facts["instructions"] = count_families(compiled.mod.inspect_source("s"), target.arch)
    export_library(folder, compiled, target.arch)
    if isinstance(target, GpuTarget) and target.sm is not None:
        check_fatbin((folder / LIBRARY).read_bytes(), target.sm, [kernel["name"] for kernel in facts["kernels"]])
    write_manifest(
        folder,
        {
            "kind": "artefact",
            "interface": interface_key(dims, quantisation),
            "dims": dims.as_dict(),
            "quantisation": quantisation.name,
            "target": target.name,
            "arch": target.arch,
            "system": host.mtriple.partition("-")[2],
            "features": sorted(target.features),
            "kernel_version": KERNEL_VERSION,
            "source": source,
            "page_tokens": PAGE_TOKENS,
            "tvm": tvm.__version__,
            "regions": list(blocks.REGIONS),
            **facts,
        },
    )


def export_library(folder: Path, compiled: Any, arch: str) -> None:
    """Links what TVM has compiled into the folder's library, for machines of `arch`. Raises BuildError."""
    # Beside the folder that becomes the entry, under a name by which the store knows whose leftovers these are.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as workspace:
        compiled.export_library(str(folder / LIBRARY), fcompile=link_for(arch), workspace_dir=workspace)


def require_room(folder: Path) -> None:
    """LLVM ends the process where it cannot write, so the room is tried for first. Raises OSError where there is none."""
    path = folder / "room"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
    path.unlink()
