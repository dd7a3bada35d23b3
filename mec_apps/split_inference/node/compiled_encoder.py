"""Runs an encoder's artefact over its package: one tensor through a range of partitions.

Counterpart of `compiled_model` for decoders. It keeps nothing between two runs. Call `run` from one thread only.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.node.artefact import open_artefact
from mec_apps.split_inference.node.artefact_check import MachineFacts, PackageFacts
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.tvm_runtime import ThreadPool, load_library, load_runtime
from mec_platform.domain.layers import LayerRange

_CPU, _POOLED = 1, 2
"""TVM's numbers for the device type and for an allocator that keeps what it has got."""


class CompiledEncoder:
    """See the module.

    Raises:
        ArtefactError: the artefact is missing, damaged, or was built for another module or CPU.
        ValueError: a number of threads that cannot be kept.
    """

    def __init__(
        self, package: EncoderPackage, artefact_dir: Path, *, threads: int, machine: MachineFacts | None = None
    ) -> None:
        facts = PackageFacts(package.shape.name, package.quantisation, package.interface)
        manifest = open_artefact(artefact_dir, facts, machine or read_machine())
        self.target: str = manifest["target"]
        self._package = package
        self._ffi = load_runtime()
        self._pool = ThreadPool(self._ffi, threads)
        self._machine = load_library(self._ffi, artefact_dir)["vm_load_executable"]()
        self._machine["vm_initialization"](_CPU, 0, _POOLED, _CPU, 0, _POOLED)
        self._functions = [self._machine[name] for name in package.functions]
        # Memory that starts at a page: kernels take 64 bytes for granted, which NumPy's own does not keep.
        largest = max(map(package.boundary_bytes, range(len(package.boundaries))))
        self._incoming = np.frombuffer(mmap.mmap(-1, largest), np.float32)
        self._weights: dict[int, list[Any]] = {}

    def run(self, layers: LayerRange, activations: np.ndarray) -> np.ndarray:
        """The float32 tensor behind the partitions `layers`, from the one in front of them.

        Raises:
            ValueError: partitions that the encoder does not have, or a tensor of another shape.
        """
        self._pool.enter()
        boundaries = self._package.boundaries
        if layers.stop >= len(boundaries):
            raise ValueError(f"the encoder has {len(boundaries) - 1} partitions; {layers} is outside")
        if activations.shape != boundaries[layers.start]:
            raise ValueError(f"partition {layers.start} takes {boundaries[layers.start]}, not {activations.shape}")
        held = self._incoming[: activations.size].reshape(activations.shape)
        held[...] = activations
        current = self._ffi.from_dlpack(held)
        for partition in layers:
            current = self._functions[partition](current, *self._weights_of(partition))
        return np.from_dlpack(current).copy()

    def release_layers(self, layers: LayerRange) -> None:
        """Nothing is kept for layers between runs."""

    def _weights_of(self, partition: int) -> list[Any]:
        found = self._weights.get(partition)
        if found is None:
            found = [self._ffi.from_dlpack(array) for array in self._package.weights(partition)]
            self._weights[partition] = found
        return found
