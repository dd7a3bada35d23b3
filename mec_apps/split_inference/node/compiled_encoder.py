"""Runs an encoder's artefact over its package: one tensor through a range of partitions.

Counterpart of `compiled_model` for decoders. It keeps nothing between two runs. All calls come from one thread.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mec_apps.split_inference.encoder_package import EncoderPackage
from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.node.artefact import open_artefact
from mec_apps.split_inference.node.artefact_check import MachineFacts, PackageFacts
from mec_apps.split_inference.node.kv_pages import KvRefusal
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.stage_model import BatchResult, Floats, Integers, StageBatch
from mec_apps.split_inference.node.tvm_runtime import ThreadPool, load_library, load_runtime
from mec_platform.domain.layers import LayerRange

_CPU, _POOLED = 1, 2
"""TVM's numbers for the device type and for an allocator that keeps what it has got."""


class CompiledEncoder:
    """A `StageModel` whose rows are whole tensors: row r of a batch is one request's tensor, flat.

    Nothing is kept between runs; a request takes the one KV page that it is given only so that no more than
    `max_requests` are on their way.

    Raises:
        ArtefactError: the artefact is missing, damaged, or was built for another module or CPU.
        ValueError: a number of threads that cannot be kept.
    """

    page_tokens = 1
    page_bytes = 1
    kv_heads = 1

    def __init__(
        self,
        package: EncoderPackage,
        artefact_dir: Path,
        *,
        threads: int,
        max_requests: int = 1,
        machine: MachineFacts | None = None,
    ) -> None:
        facts = PackageFacts(package.shape.name, package.quantisation, package.interface)
        manifest = open_artefact(artefact_dir, facts, machine or read_machine())
        self.target: str = manifest["target"]
        self.threads = threads
        self.blocks = self.calibration_layers = package.shape.blocks
        self.kv_pages = max_requests + 1
        self.page_table = np.zeros((max_requests + 1, 1), np.int32)
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

    def run_one(self, layers: LayerRange, activations: Floats) -> Floats:
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
        return np.array(np.from_dlpack(current), np.float32)  # a copy: the memory is the machine's

    def run(self, batch: StageBatch) -> BatchResult:
        """See `StageModel`; the last stage gives hidden rows too, there is nothing to sample."""
        started = time.perf_counter()
        rows = np.frombuffer(batch.content, np.float32).reshape(len(batch.positions), -1)
        hidden = self.run_blocks(batch.layers, rows, batch.positions, batch.slots)
        return BatchResult(hidden, [], time.perf_counter() - started, 0.0)

    def run_blocks(self, layers: LayerRange, hidden: Floats, positions: Integers, slots: Integers) -> Floats:
        """Every row's tensor behind `layers`; what a row has beyond the tensor in front of them is not looked at."""
        shape = self._package.boundaries[layers.start]
        tensors = (row[: math.prod(shape)].reshape(shape) for row in hidden)
        return np.stack([self.run_one(layers, tensor).reshape(-1) for tensor in tensors])

    def time_head(self) -> float:
        """There is no head."""
        return 0.0

    def load_stage(self, layers: LayerRange, is_first: bool, is_last: bool) -> None:
        """Weights are mapped; running faults them in."""

    def release_layers(self, layers: LayerRange) -> None:
        """Nothing is kept for layers between runs."""

    def release_text(self, embed: bool, head: bool) -> None:
        """There is neither."""

    def measurable(self, layers: LayerRange) -> LayerRange | None:
        """All layers can run at any time."""
        return layers

    def read_pages(self, layer: int, pages: Sequence[int]) -> tuple[bytes, bytes]:
        """Raises KvRefusal: an encoder keeps no KV."""
        raise KvRefusal(Refusal.BAD_FRAME, "an encoder keeps no KV")

    def write_pages(self, layer: int, pages: Sequence[int], keys: bytes, values: bytes) -> None:
        """Raises KvRefusal: an encoder keeps no KV."""
        raise KvRefusal(Refusal.BAD_FRAME, "an encoder keeps no KV")

    def wipe_pages(self, layer: int, pages: Sequence[int]) -> None:
        """Nothing is kept of a request that is over."""

    def wipe_scratch(self) -> None:
        """See `StageModel`."""
        self._incoming[:] = 0

    def _weights_of(self, partition: int) -> list[Any]:
        found = self._weights.get(partition)
        if found is None:
            found = [self._ffi.from_dlpack(array) for array in self._package.weights(partition)]
            self._weights[partition] = found
        return found
