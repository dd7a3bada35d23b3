"""Runs a GPU artefact: weights, KV and activations stay on the device, a frame crosses once in and its result once out.

In goes one int32 array (`device_frame`), out come hidden rows or, on the last stage, token ids: sampling is a kernel too.
A simulated GPU is the same kernels compiled for the CPU, and this same module with the CPU as its device.

Weights are uploaded when a stage is loaded and freed when nobody needs them (`device_layers`). One thread calls.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mec_apps.split_inference.generation import SamplingSettings
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.device_frame import FrameLayout, frame_words, pack_device_frame
from mec_apps.split_inference.node.device_layers import RUN_LAYERS, DeviceLayers
from mec_apps.split_inference.node.device_memory import DeviceMemory, Tensor
from mec_apps.split_inference.node.stage_model import BatchResult, Draw, Floats, Integers, StageBatch, check_range
from mec_apps.split_inference.node.tvm_runtime import load_cuda_part, load_library, load_runtime
from mec_platform.domain.layers import LayerRange

DEVICES = {"cuda": "cuda:0", "simulated-gpu": "cpu:0"}
"""What a manifest calls the device, and what TVM's runtime does."""

_CALIBRATION_LAYERS = 4
_MAX_INDEX = 2**31 - 1  # kernels index with 32 bits


class DeviceModel:
    """A `StageModel` on a device; `memory` counts the copies.

    Raises:
        ArtefactError: the artefact or what it needs of CUDA cannot be loaded.
        MemoryError: the device has no room for activations.
        ValueError: a limit that cannot be kept.
    """

    def __init__(
        self,
        package: ModelPackage,
        artefact_dir: Path,
        manifest: dict[str, Any],
        *,
        threads: int,
        kv_pages: int,
        max_sessions: int,
        max_rows: int,
        context: int,
    ) -> None:
        spec, dims = package.spec, package.dims
        self.target: str = manifest["target"]
        self.threads = threads
        self.page_tokens: int = manifest["page_tokens"]
        self.kv_heads = dims.kv_heads
        self.page_bytes = dims.kv_heads * dims.head_dim * self.page_tokens * 2
        self.kv_pages = kv_pages
        self.blocks = spec.blocks
        self.calibration_layers = min(_CALIBRATION_LAYERS, spec.blocks)
        self.regions: list[str] = manifest["regions"]
        self._package = package
        self._max_rows = max_rows
        self._context = context
        if kv_pages * self.page_bytes // 2 * RUN_LAYERS > _MAX_INDEX:
            raise ValueError(f"{kv_pages} KV pages are more than the kernels can index; use fewer")
        pages = -(-context // self.page_tokens)
        self.page_table: Integers = np.zeros((max_sessions, pages), np.int32)
        ffi, device = load_runtime(), DEVICES[manifest["device"]]
        if device.startswith("cuda"):
            load_cuda_part()
        module = load_library(ffi, artefact_dir)
        facts = manifest["functions"]
        self._functions = {name: module[name] for name in facts}
        self.memory = DeviceMemory(ffi, device)
        self._layers = DeviceLayers(self.memory, package, facts["blocks"]["weights"], kv_pages, self.page_tokens)
        self._text_names: dict[str, list[str]] = {name: facts[name]["weights"] for name in ("embed", "head")}
        self._text: dict[str, list[Tensor]] = {}
        self._rope = self.memory.allocate((pages * self.page_tokens, dims.head_dim), "float32")
        self._head_s = 0.0
        self._allocate(facts, frame_words(max_rows, dims.hidden, max_sessions, pages))

    def _allocate(self, facts: dict[str, Any], words: int) -> None:
        """Room for a frame of so many words, activations and results, here and on the device."""
        dims, rows = self._package.dims, self._max_rows
        self._buffers: list[tuple[Tensor, tuple[int, ...], str]] = []

        def allocate(shape: tuple[int, ...], dtype: str) -> Tensor:
            tensor = self.memory.allocate(shape, dtype)
            self._buffers.append((tensor, shape, dtype))
            return tensor

        self._frame: Integers = np.zeros(words, np.int32)
        self._result: Floats = np.zeros((rows, dims.hidden), np.float32)
        self._tokens: Integers = np.zeros(rows, np.int32)
        self._device_frame = allocate((words,), "int32")
        self._hidden = allocate((rows, dims.hidden), "float32")
        self._logits = allocate((rows, dims.vocab), "float32")
        self._device_tokens = allocate((rows,), "int32")
        limits = {"rows": rows, "draws": rows}
        self._scratch = {
            name: [
                allocate(tuple(limits.get(size, size) for size in entry["shape"]), entry["dtype"])
                for entry in function["scratch"]
            ]
            for name, function in facts.items()
        }

    def run(self, batch: StageBatch) -> BatchResult:
        """See `StageModel`."""
        started = time.perf_counter()
        tokens: list[int] = []
        layout = self._send(batch)
        self._run_kernels(batch, layout, len(self.regions))
        hidden: Floats | None = None
        if batch.is_last:
            tokens = self._sample(batch, layout)
        else:
            hidden = self._result[: len(batch.positions)]
            self.memory.get(self._hidden, hidden)
        spent = time.perf_counter() - started
        # Kernels run behind the caller's back until the result is there: the head's part is known from its calibration.
        head_s = min(self._head_s * len(tokens), spent / 2)
        return BatchResult(hidden, tokens, spent - head_s, head_s)

    def run_blocks(self, layers: LayerRange, hidden: Floats, positions: Integers, slots: Integers) -> Floats:
        """See `StageModel`; a fresh array."""
        batch = StageBatch(layers, hidden.astype(np.float32).tobytes(), False, False, positions, slots)
        result = self.run(batch).hidden
        assert result is not None
        return result.copy()

    def time_head(self) -> float:
        """See `StageModel`."""
        self._load_text("head")
        zero = np.zeros(1, np.int32)
        row = bytes(self._hidden.shape[1] * 4)
        batch = StageBatch(LayerRange(0, 1), row, False, True, zero, zero, (Draw(0, 1, SamplingSettings()),))
        started = time.perf_counter()
        layout = self._send(batch)
        self._functions["receive"](self._device_frame, layout.content, 1, self._hidden)
        self._sample(batch, layout)
        self._head_s = time.perf_counter() - started
        return self._head_s

    def time_regions(self, batch: StageBatch) -> dict[str, float]:
        """Seconds of each region over the batch's layers: what all regions up to it take less what those before it take."""
        layout = self._send(batch)
        spent = [0.0]
        for count in range(1, len(self.regions) + 1):
            started = time.perf_counter()
            self._run_kernels(batch, layout, count)
            self.memory.get(self._device_tokens, self._tokens[:1])
            spent.append(time.perf_counter() - started)
        return {name: max(0.0, spent[i + 1] - spent[i]) for i, name in enumerate(self.regions)}

    def load_stage(self, layers: LayerRange, is_first: bool, is_last: bool) -> None:
        """See `StageModel`."""
        if is_first:
            self._load_text("embed")
        if is_last:
            self._load_text("head")
        if self._layers.load(layers):
            # Again with every load: a node that fetches its weights has this table, too, only when it has a stage.
            self.memory.put(self._rope, self._package.tensor("rope")[: self._rope.shape[0]])

    def release_layers(self, layers: LayerRange) -> None:
        """See `StageModel`."""
        self._layers.release(layers)

    def release_text(self, embed: bool, head: bool) -> None:
        """See `StageModel`."""
        for name, unused in (("embed", embed), ("head", head)):
            if unused:
                self._text.pop(name, None)

    def measurable(self, layers: LayerRange) -> LayerRange | None:
        """See `StageModel`."""
        held = self._layers.layers
        if not held:
            return None
        start = layers.start if layers.start in held else held[0]
        stop = start + 1
        while stop < start + len(layers) and stop in held:
            stop += 1
        return LayerRange(start, stop)

    def read_pages(self, layer: int, pages: Sequence[int]) -> tuple[bytes, bytes]:
        """See `StageModel`."""
        run, place = self._layers.place(layer)
        keys, values = self._moved(len(pages))
        ids = self.memory.upload(np.array(pages, np.int32))
        moved = [self.memory.allocate(array.shape, "float16") for array in (keys, values)]
        self._functions["gather"](run.keys, run.values, place, ids, len(pages), *moved)
        for tensor, array in zip(moved, (keys, values), strict=True):
            self.memory.get(tensor, array)
        return keys.tobytes(), values.tobytes()

    def write_pages(self, layer: int, pages: Sequence[int], keys: bytes, values: bytes) -> None:
        """See `StageModel`."""
        run, place = self._layers.place(layer)
        shapes = [array.shape for array in self._moved(len(pages))]
        moved = [
            self.memory.upload(np.frombuffer(content, np.float16).reshape(shape))
            for content, shape in zip((keys, values), shapes, strict=True)
        ]
        ids = self.memory.upload(np.array(pages, np.int32))
        self._functions["scatter"](run.keys, run.values, place, ids, len(pages), *moved)

    def wipe_pages(self, layer: int, pages: Sequence[int]) -> None:
        """See `StageModel`."""
        zeros = bytes(len(pages) * self.page_bytes)
        self.write_pages(layer, pages, zeros, zeros)

    def wipe_scratch(self) -> None:
        """See `StageModel`; here and on the device."""
        for array in (self._frame, self._result, self._tokens):
            array[:] = 0
        for tensor, shape, dtype in self._buffers:
            self.memory.wipe(tensor, 0, shape, dtype)

    def _send(self, batch: StageBatch) -> FrameLayout:
        """The batch in one copy."""
        self._check(batch)
        layout = pack_device_frame(batch, self.page_table, self.page_tokens, self._frame)
        self.memory.put(self._device_frame, self._frame[: layout.words])
        return layout

    def _run_kernels(self, batch: StageBatch, layout: FrameLayout, regions: int) -> None:
        """Content to hidden rows, and those through the layers, all on the device."""
        rows, frame, hidden = len(batch.positions), self._device_frame, self._hidden
        if batch.is_first:
            self._functions["embed"](frame, layout.content, rows, hidden, *self._load_text("embed"))
        else:
            self._functions["receive"](frame, layout.content, rows, hidden)
        for run, first, stop in self._layers.parts(batch.layers):
            self._functions["blocks"](
                hidden,
                rows,
                frame,
                layout.table,
                layout.stride,
                regions,
                first,
                stop,
                self._rope,
                run.keys,
                run.values,
                *run.weights,
                *self._scratch["blocks"],
            )

    def _sample(self, batch: StageBatch, layout: FrameLayout) -> list[int]:
        """A token for each draw, in one copy."""
        draws = len(batch.draws)
        if not draws:
            return []
        frame = self._device_frame
        self._functions["head"](
            self._hidden,
            frame,
            layout.draws,
            draws,
            *self._load_text("head"),
            *self._scratch["head"],
            self._logits,
        )
        self._functions["sample"](
            self._logits, self._package.spec.vocab, frame, layout.draws, draws, self._device_tokens
        )
        tokens = self._tokens[:draws]
        self.memory.get(self._device_tokens, tokens)
        return [int(token) for token in tokens]

    def _load_text(self, name: str) -> list[Tensor]:
        """Weights of `embed` or `head`; a tied matrix is uploaded once for both."""
        found = self._text.get(name)
        if found is not None:
            return found
        arrays = [self._package.tensor(each) for each in self._text_names[name]]
        shared = {
            id(self._package.tensor(each)): tensor
            for other, tensors in self._text.items()
            for each, tensor in zip(self._text_names[other], tensors, strict=True)
        }
        loaded = [shared[id(array)] if id(array) in shared else self.memory.upload(array) for array in arrays]
        self._text[name] = loaded
        return loaded

    def _moved(self, pages: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for keys and values of some pages, as they travel."""
        dims = self._package.dims
        return (
            np.empty((pages, dims.kv_heads, dims.head_dim, self.page_tokens), np.float16),
            np.empty((pages, dims.kv_heads, self.page_tokens, dims.head_dim), np.float16),
        )

    def _check(self, batch: StageBatch) -> None:
        rows = len(batch.positions)
        if not 1 <= rows <= self._max_rows:
            raise ValueError(f"a batch has 1 to {self._max_rows} rows, not {rows}")
        if len(batch.slots) != rows or len(batch.content) != rows * (
            4 if batch.is_first else self._hidden.shape[1] * 4
        ):
            raise ValueError(f"{rows} rows, but {len(batch.slots)} slots and {len(batch.content)} bytes of content")
        if batch.is_first:
            check_range("tokens", np.frombuffer(batch.content, np.int32), self._package.spec.vocab)
        check_range("positions", batch.positions, self._context)
        check_range("slots", batch.slots, len(self.page_table))
