"""The layers that a device holds: weights and KV of each, in runs of consecutive layers that kernels take at once.

A layer is uploaded once, however many stages of old and new plans need it. Counterpart: `device_model`, which runs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.device_memory import DeviceMemory, Tensor
from mec_platform.domain.layers import LayerRange

RUN_LAYERS = 8
"""Most layers of a run. A run is freed when none of its layers is needed any more, so it must not be long; a call of the
kernels for so many layers costs no more than one for all (a launch takes some microseconds, a call as long)."""


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Consecutive layers on the device: keys and values [layers, pages, ...] and the kernels' weights in their order."""

    layers: LayerRange
    keys: Tensor
    values: Tensor
    weights: tuple[Tensor, ...]


class DeviceLayers:
    """All runs, and which of their layers are still needed."""

    def __init__(
        self, memory: DeviceMemory, package: ModelPackage, weight_names: Sequence[str], kv_pages: int, page_tokens: int
    ) -> None:
        dims = package.dims
        self._memory = memory
        self._package = package
        self._weight_names = weight_names
        self._key_page = (kv_pages, dims.kv_heads, dims.head_dim, page_tokens)
        self._value_page = (kv_pages, dims.kv_heads, page_tokens, dims.head_dim)
        self._runs: dict[int, LayerRun] = {}  # by layer: the run that holds it

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that are needed, in ascending order."""
        return tuple(sorted(self._runs))

    def load(self, layers: LayerRange) -> bool:
        """Uploads those of `layers` that are not here, if any. Raises MemoryError; then nothing has changed."""
        fresh: dict[int, LayerRun] = {}
        for start, stop in self._missing(layers):
            run = self._upload(LayerRange(start, stop))
            fresh |= dict.fromkeys(run.layers, run)
        self._runs |= fresh
        return bool(fresh)

    def release(self, layers: LayerRange) -> None:
        """These layers are not needed any more: their KV is wiped; a run that no layer needs is freed."""
        for layer in layers:
            run = self._runs.pop(layer, None)
            if run is not None:
                place = layer - run.layers.start
                self._memory.wipe(run.keys, place, self._key_page, "float16")
                self._memory.wipe(run.values, place, self._value_page, "float16")

    def place(self, layer: int) -> tuple[LayerRun, int]:
        """The run of a layer and its place there. Raises ValueError where it is not loaded."""
        run = self._runs.get(layer)
        if run is None:
            raise ValueError(f"layer {layer} is not loaded on this node")
        return run, layer - run.layers.start

    def parts(self, layers: LayerRange) -> Iterator[tuple[LayerRun, int, int]]:
        """Runs that `layers` go through in order, with the first and the end of their layers there. Raises ValueError."""
        layer = layers.start
        while layer < layers.stop:
            run, first = self.place(layer)
            stop = min(layers.stop, run.layers.stop)
            yield run, first, stop - run.layers.start
            layer = stop

    def _missing(self, layers: LayerRange) -> Iterator[tuple[int, int]]:
        """Consecutive layers that are not here, at most `RUN_LAYERS` at a time."""
        start = None
        for layer in range(layers.start, layers.stop + 1):
            absent = layer < layers.stop and layer not in self._runs
            if start is not None and (not absent or layer - start == RUN_LAYERS):
                yield start, layer
                start = None
            if absent and start is None:
                start = layer

    def _upload(self, layers: LayerRange) -> LayerRun:
        memory, count = self._memory, len(layers)
        # A tensor that the model lacks is stood for by another, by name: each is uploaded once.
        weights = {name: memory.upload(self._package.tensor(name, layers)) for name in set(self._weight_names)}
        return LayerRun(
            layers,
            memory.allocate((count, *self._key_page), "float16"),
            memory.allocate((count, *self._value_page), "float16"),
            tuple(weights[name] for name in self._weight_names),
        )
