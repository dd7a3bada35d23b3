"""Writes what nodes need of a torch module: a package with its weights and facts, and an artefact with its functions.

Both are entries of the content store, in the form of a decoder's, with "form": "encoder" in their manifests. Partitions
take the place of blocks. weights.bin holds the packed tensors of one partition after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compiler.artefact import export_library, require_room
from compiler.model_package import WEIGHTS, Progress, WeightTable
from compiler.targets.row import CpuTarget
from compiler.torch_modules.cuts import Partition
from compiler.torch_modules.lowering import LoweredFunction, lower_functions
from compiler.torch_modules.program import TorchProgram
from mec_platform.content_store.entries import write_manifest
from mec_platform.domain.kernel_contract import KERNEL_VERSION, PAGE_TOKENS
from mec_platform.domain.model_shape import ModelShape

FORM = "encoder"
QUANTISATION = "f32"

_PACK = "main_transform_params"


def structures_of(partitions: Sequence[Partition]) -> list[str]:
    """The different structures in the order of their first partition; function i of the artefact is the i-th."""
    return list(dict.fromkeys(each.structure for each in partitions))


def interface_of(structures: Sequence[str]) -> str:
    """What a package and an artefact have to share to fit together."""
    return hashlib.sha256("\n".join(structures).encode()).hexdigest()[:16]


def write_encoder_package(
    folder: Path,
    program: TorchProgram,
    partitions: Sequence[Partition],
    lowered: dict[str, LoweredFunction],
    progress: Progress,
) -> None:
    """Fills `folder` with weights.bin and the manifest."""
    structures = structures_of(partitions)
    packers = {structure: _packer(lowered[structure]) for structure in structures}
    table = WeightTable(folder / WEIGHTS)
    digests = []
    for index, each in enumerate(partitions):
        progress("packing weights", index, len(partitions))
        digest = hashlib.sha256()
        for number, value in enumerate(packers[each.structure](each)):
            table.add(f"blocks.{index}.{number}", value.dtype, value.shape)[...] = value
            digest.update(np.ascontiguousarray(value).data)
        digests.append(digest.hexdigest())
    progress("packing weights", len(partitions), len(partitions))
    shapes = [each.input_shape for each in partitions] + [partitions[-1].output_shape]
    write_manifest(
        folder,
        {
            "kind": "model-package",
            "form": FORM,
            "quantisation": QUANTISATION,
            "interface": interface_of(structures),
            "structures": structures,
            "spec": {"name": program.name, "context": 0},
            "shape": asdict(_model_shape(program.name, partitions, shapes, table)),
            "boundaries": [list(shape) for shape in shapes],
            "partitions": [{"name": each.name, "function": structures.index(each.structure)} for each in partitions],
            "input": program.input,
            "note": program.note,
            "block_sha256": digests,
            "tensors": table.entries,
        },
    )


def write_encoder_artefact(
    folder: Path, structures: Sequence[str], lowered: dict[str, LoweredFunction], target: CpuTarget
) -> None:
    """Fills `folder` with lib.so and its manifest.

    Raises:
        BuildError: no linker, or it fails.
    """
    require_room(folder)
    module = lower_functions([lowered[structure].run for structure in structures], target)
    compiled = tvm.compile(module, target=tvm.target.Target(target.llvm()))
    export_library(folder, compiled, target.arch)
    write_manifest(
        folder,
        {
            "kind": "artefact",
            "form": FORM,
            "interface": interface_of(structures),
            "quantisation": QUANTISATION,
            "target": target.name,
            "arch": target.arch,
            "system": target.mtriple.partition("-")[2],
            "features": sorted(target.features),
            "kernel_version": KERNEL_VERSION,
            "page_tokens": PAGE_TOKENS,
            "tvm": tvm.__version__,
            "regions": [],
            "functions": {f"f{index}": _describe(lowered[structure]) for index, structure in enumerate(structures)},
        },
    )


def _describe(function: LoweredFunction) -> dict[str, Any]:
    """The arguments of a function, as a decoder's artefact describes its own."""
    activations = {"name": "x", "dtype": "float32", "shape": list(function.input_shape)}
    weights = [
        {"name": f"w{number}", "dtype": dtype, "shape": list(shape)}
        for number, (dtype, shape) in enumerate(function.packed)
    ]
    return {"weights": [each["name"] for each in weights], "arguments": [activations, *weights], "outputs": ["result"]}


def _packer(function: LoweredFunction) -> Callable[[Partition], list[np.ndarray]]:
    """What turns a partition's weights into the packed tensors; compiled for this machine, whatever the target."""
    machine = relax.VirtualMachine(tvm.compile(function.pack, target=tvm.target.Target({"kind": "llvm"})), tvm.cpu())

    def pack(partition: Partition) -> list[np.ndarray]:
        weights = [tvm.runtime.tensor(np.ascontiguousarray(each.cpu().numpy())) for each in partition.weights]
        return [each.numpy() for each in machine[_PACK](weights)]

    return pack


def _model_shape(
    name: str, partitions: Sequence[Partition], shapes: Sequence[tuple[int, ...]], table: WeightTable
) -> ModelShape:
    """Planners know one size for all blocks, so the largest partition and the largest activation stand for all."""
    sizes = [table.bytes_of(f"blocks.{index}.") for index in range(len(partitions))]
    return ModelShape(
        name=name,
        blocks=len(partitions),
        hidden_bytes_per_row=max(4 * int(np.prod(shape)) for shape in shapes),
        block_bytes=max(sizes),
        embed_bytes=0,
        head_bytes=0,
        kv_bytes_per_token_per_block=0,
    )
