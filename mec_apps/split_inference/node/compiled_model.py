"""Runs an artefact over a model package: tokens to hidden rows, rows through layer ranges, hidden rows to logits.

The `StageModel` of a node that computes on its CPU. It owns the KV memory of all blocks and every scratch buffer; what
slots and pages mean is the caller's business.

Threads: TVM keeps a pool of worker threads per calling thread. Make every call of `embed`, `run_blocks` and `head` from
the same thread (any one; the instance remembers the first), or each calling thread starts a pool of its own.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.artefact import open_artefact
from mec_apps.split_inference.node.artefact_check import MachineFacts, PackageFacts
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.sampling import sample_token
from mec_apps.split_inference.node.stage_model import BatchResult, Floats, StageBatch, check_range
from mec_apps.split_inference.node.tvm_runtime import ThreadPool, load_library, load_runtime
from mec_platform.domain.layers import LayerRange

_CALIBRATION_LAYERS = 16
_MAX_INDEX = 2**31 - 1  # kernels index with 32 bits


class CompiledModel:
    """See the module. Rows are float32 [M, hidden]; M is at most `max_rows`.

    Attributes:
        page_tokens: tokens of a KV page.
        keys: float16 [blocks, kv_pages, kv_heads, head_dim, page_tokens]; pages never written take no memory.
        values: float16 [blocks, kv_pages, kv_heads, page_tokens, head_dim]; likewise.
        page_table: int32 [max_sessions, pages of a whole context]; row `slot` lists a session's pages in order. The
            caller fills it in place.

    Raises:
        ArtefactError: the artefact is missing, damaged, or was built for another model or CPU.
        ValueError: a limit that cannot be kept.
    """

    def __init__(
        self,
        package: ModelPackage,
        artefact_dir: Path,
        *,
        threads: int,
        kv_pages: int,
        max_sessions: int,
        max_rows: int,
        context: int,
        machine: MachineFacts | None = None,
    ) -> None:
        spec, dims = package.spec, package.dims
        if not 1 <= context <= spec.context:
            raise ValueError(f"context must be between 1 and the model's {spec.context} tokens, not {context}")
        facts = PackageFacts(spec.name, package.quantisation, package.interface)
        manifest = open_artefact(artefact_dir, facts, machine or read_machine())
        self._ffi = load_runtime()
        self._module = load_library(self._ffi, artefact_dir)
        self._functions = {name: self._module[name] for name in manifest["functions"]}
        self._package = package
        self.threads = threads
        self._pool = ThreadPool(self._ffi, threads)
        self.max_rows = max_rows
        self.context = context
        self.page_tokens: int = manifest["page_tokens"]
        self.kv_heads = dims.kv_heads
        self.page_bytes = dims.kv_heads * dims.head_dim * self.page_tokens * 2
        self.kv_pages = kv_pages
        self.blocks = spec.blocks
        self.calibration_layers = min(_CALIBRATION_LAYERS, spec.blocks)
        self.target: str = manifest["target"]

        pages_per_session = -(-context // self.page_tokens)
        _, self.page_table = _aligned_zeros((max_sessions, pages_per_session), np.int32)
        page = (dims.kv_heads, dims.head_dim, self.page_tokens)
        if spec.blocks * kv_pages * np.prod(page) > _MAX_INDEX:
            raise ValueError(f"{kv_pages} KV pages are more than the kernels can index; use fewer")
        self._key_memory, self.keys = _lazy_array((spec.blocks, kv_pages, *page))
        self._value_memory, self.values = _lazy_array(
            (spec.blocks, kv_pages, dims.kv_heads, self.page_tokens, dims.head_dim)
        )

        self._scratch_memory: list[mmap.mmap] = []
        self._tokens = self._make_scratch((max_rows,), np.int32)
        self._positions = self._make_scratch((max_rows,), np.int32)
        self._slots = self._make_scratch((max_rows,), np.int32)
        self._hidden = self._make_scratch((max_rows, dims.hidden), np.float32)
        self._logits = self._make_scratch((max_rows, dims.vocab), np.float32)
        limits = {"rows": max_rows, "threads": threads, "pages": pages_per_session}
        self._scratch = {
            name: [
                self._make_scratch(tuple(limits.get(size, size) for size in entry["shape"]), entry["dtype"])
                for entry in function["scratch"]
            ]
            for name, function in manifest["functions"].items()
        }
        self._regions: list[str] = manifest["regions"]
        self._region_ticks = self._scratch["blocks"][-1]
        _, self._now = _aligned_zeros((1,), np.int64)
        self._now_view = self._ffi.from_dlpack(self._now)
        self._started = self._read_clock()
        self._scratch_rows = {
            name: [entry["shape"].index("rows") if "rows" in entry["shape"] else None for entry in function["scratch"]]
            for name, function in manifest["functions"].items()
        }
        self._weight_names = {name: function["weights"] for name, function in manifest["functions"].items()}
        # Views handed to the kernels, made once per layer range and per count of rows.
        view = self._ffi.from_dlpack
        self._shared = [view(self.page_table), view(package.tensor("rope")[: pages_per_session * self.page_tokens])]
        self._text_weights = {
            name: [view(package.tensor(tensor)) for tensor in self._weight_names[name]] for name in ("embed", "head")
        }
        self._range_views: dict[LayerRange, list[Any]] = {}
        self._row_views: dict[int, dict[str, list[Any]]] = {}

    def run(self, batch: StageBatch) -> BatchResult:
        """See `StageModel`."""
        if batch.is_first:
            hidden = self.embed(np.frombuffer(batch.content, np.int32))
        else:
            hidden = np.frombuffer(batch.content, np.float32).reshape(len(batch.positions), -1)
        started = time.perf_counter()
        hidden = self.run_blocks(batch.layers, hidden, batch.positions, batch.slots)
        blocks_done = time.perf_counter()
        if not batch.is_last:
            return BatchResult(hidden, [], blocks_done - started, 0.0)
        tokens = self._sample(batch, hidden) if batch.draws else []
        return BatchResult(None, tokens, blocks_done - started, time.perf_counter() - blocks_done)

    def _sample(self, batch: StageBatch, hidden: Floats) -> list[int]:
        logits = self.head(hidden[[draw.row for draw in batch.draws]])
        return [
            sample_token(row, draw.settings.temperature, draw.settings.top_p, draw.settings.seed, draw.position)
            for row, draw in zip(logits, batch.draws, strict=True)
        ]

    def time_head(self) -> float:
        """See `StageModel`."""
        started = time.perf_counter()
        sample_token(self.head(self.embed(np.zeros(1, np.int32)))[0], 0.0, 1.0, 0, 0)
        return time.perf_counter() - started

    def load_stage(self, layers: LayerRange, is_first: bool, is_last: bool) -> None:
        """Nothing to do: weights are mapped, and KV takes memory when it is written."""

    def release_text(self, embed: bool, head: bool) -> None:
        """Nothing to do: weights are mapped."""

    def measurable(self, layers: LayerRange) -> LayerRange | None:
        """See `StageModel`: any layer can run."""
        return layers

    def read_pages(self, layer: int, pages: Sequence[int]) -> tuple[bytes, bytes]:
        """See `StageModel`."""
        chosen = list(pages)
        return self.keys[layer, chosen].tobytes(), self.values[layer, chosen].tobytes()

    def write_pages(self, layer: int, pages: Sequence[int], keys: bytes, values: bytes) -> None:
        """See `StageModel`."""
        chosen = list(pages)
        for memory, content in ((self.keys, keys), (self.values, values)):
            memory[layer, chosen] = np.frombuffer(content, np.float16).reshape(len(chosen), *memory.shape[2:])

    def wipe_pages(self, layer: int, pages: Sequence[int]) -> None:
        """See `StageModel`."""
        chosen = list(pages)
        self.keys[layer, chosen] = 0
        self.values[layer, chosen] = 0

    def wipe_scratch(self) -> None:
        """See `StageModel`. The memory goes back to the system, which gives zeros for it."""
        for memory in self._scratch_memory:
            memory.madvise(mmap.MADV_DONTNEED)

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """Hidden rows of int32 `tokens` [M]; a fresh float32 [M, hidden].

        Raises:
            ValueError: too many rows, or a token outside the vocabulary.
        """
        rows = self._enter(len(tokens))
        check_range("tokens", tokens, self._package.spec.vocab)
        self._tokens[:rows] = tokens
        views = self._views(rows)["embed"]
        self._functions["embed"](*views, *self._text_weights["embed"])
        return self._hidden[:rows].copy()

    def run_blocks(
        self, layers: LayerRange, hidden: np.ndarray, positions: np.ndarray, slots: np.ndarray
    ) -> np.ndarray:
        """`hidden` [M, hidden] after the blocks of `layers`; appends to the KV pages of these blocks.

        Row r belongs to the session whose pages `page_table[slots[r]]` lists, and is its token `positions[r]`. Rows of
        one session come in ascending order; all earlier positions must be in its pages already or in this batch.

        Returns:
            A fresh float32 [M, hidden].

        Raises:
            ValueError: too many rows, or layers, positions or slots outside what this model was made for.
        """
        rows = self._enter(len(hidden))
        check_range("positions", positions, self.context)
        check_range("slots", slots, len(self.page_table))
        self._hidden[:rows] = hidden
        self._positions[:rows] = positions
        self._slots[:rows] = slots
        own = self._range_views.get(layers) or self._bind_range(layers)
        views = self._views(rows)
        self._functions["blocks"](*views["blocks"], *self._shared, *own, *views["blocks.scratch"])
        return self._hidden[:rows].copy()

    def head(self, hidden: np.ndarray) -> np.ndarray:
        """Logits of `hidden` [R, hidden]: float32 [R, vocab], a view that the next call of `head` overwrites."""
        rows = self._enter(len(hidden))
        self._hidden[:rows] = hidden
        views = self._views(rows)
        self._functions["head"](*views["head"], *self._text_weights["head"], *views["head.scratch"])
        return self._logits[:rows, : self._package.spec.vocab]

    def region_seconds(self) -> dict[str, float]:
        """Seconds that thread 0 has worked in each region of `blocks` since `reset_regions`, by the kernels' own clock."""
        seconds, ticks = (now - then for now, then in zip(self._read_clock(), self._started, strict=True))
        return {
            name: spent * seconds / ticks
            for name, spent in zip(self._regions, self._region_ticks.tolist(), strict=True)
        }

    def reset_regions(self) -> None:
        """Counts the seconds of every region from zero."""
        self._region_ticks[:] = 0

    def _read_clock(self) -> tuple[float, int]:
        """Seconds and ticks at one moment."""
        self._functions["clock"](self._now_view)
        return time.perf_counter(), int(self._now[0])

    def release_layers(self, layers: LayerRange) -> None:
        """Gives the KV memory of `layers` back to the system. All of it reads as zeros afterwards: see `StageModel`."""
        for memory, array in ((self._key_memory, self.keys), (self._value_memory, self.values)):
            size = array[0].nbytes
            first, last = layers.start * size, layers.stop * size
            start, stop = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
            if stop <= start:
                array[layers.start : layers.stop] = 0
                continue
            memory.madvise(mmap.MADV_DONTNEED, start, stop - start)
            # What shares a memory page with a layer that stays is wiped by hand.
            flat = array.reshape(-1).view(np.uint8)
            flat[first:start] = flat[stop:last] = 0

    def _enter(self, rows: int) -> int:
        """Checks the size of a batch and the calling thread, and makes the thread's pool this model's."""
        if not 1 <= rows <= self.max_rows:
            raise ValueError(f"a batch has 1 to {self.max_rows} rows, not {rows}")
        self._pool.enter()
        return rows

    def _bind_range(self, layers: LayerRange) -> list[Any]:
        """KV and weights of a layer range, in the order of the kernel's arguments."""
        if layers.stop > self._package.spec.blocks:
            raise ValueError(f"the model has {self._package.spec.blocks} blocks; {layers} is outside")
        arrays = [self.keys[layers.start : layers.stop], self.values[layers.start : layers.stop]]
        arrays += [self._package.tensor(name, layers) for name in self._weight_names["blocks"]]
        views = [self._ffi.from_dlpack(array) for array in arrays]
        self._range_views[layers] = views
        return views

    def _views(self, rows: int) -> dict[str, list[Any]]:
        """Arguments that depend on the count of rows."""
        found = self._row_views.get(rows)
        if found is not None:
            return found
        view = self._ffi.from_dlpack
        hidden = view(self._hidden[:rows])
        views = {
            "embed": [view(self._tokens[:rows]), hidden],
            "blocks": [hidden, self.threads, view(self._positions[:rows]), view(self._slots[:rows])],
            "blocks.scratch": [view(array) for array in self._scratch_of("blocks", rows)],
            "head": [hidden, self.threads],
            "head.scratch": [view(array) for array in (*self._scratch_of("head", rows), self._logits[:rows])],
        }
        self._row_views[rows] = views
        return views

    def _make_scratch(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A buffer that `wipe_scratch` wipes."""
        memory, array = _aligned_zeros(shape, dtype)
        self._scratch_memory.append(memory)
        return array

    def _scratch_of(self, function: str, rows: int) -> list[np.ndarray]:
        """Scratch cut to `rows`. Where rows are not the first axis, the same memory is laid out anew."""
        cut = []
        for array, axis in zip(self._scratch[function], self._scratch_rows[function], strict=True):
            if axis is None:
                cut.append(array)
            else:
                shape = (*array.shape[:axis], rows, *array.shape[axis + 1 :])
                cut.append(array.reshape(-1)[: int(np.prod(shape))].reshape(shape))
        return cut


def _lazy_array(shape: tuple[int, ...]) -> tuple[mmap.mmap, np.ndarray]:
    """Zeros of float16 that take memory page by page, when they are first written."""
    memory = _anonymous_memory(math.prod(shape) * 2)
    return memory, np.frombuffer(memory, np.float16).reshape(shape)


def _aligned_zeros(shape: tuple[int, ...], dtype: Any) -> tuple[mmap.mmap, np.ndarray]:
    """Zeros that start at a page: kernels take 64 bytes for granted, which NumPy's own memory does not keep."""
    count, item = math.prod(shape), np.dtype(dtype)
    memory = _anonymous_memory(max(1, count * item.itemsize))
    return memory, np.frombuffer(memory, item, count).reshape(shape)


def _anonymous_memory(size: int) -> mmap.mmap:
    """Private, or else giving pages back with MADV_DONTNEED would keep them: Python maps shared memory by default."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
