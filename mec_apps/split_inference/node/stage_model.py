"""What a node asks of a model that it computes with, whatever it computes on.

`CompiledModel` (the CPU) and `DeviceModel` (a GPU) implement `StageModel`; `ComputeThread` and `kv_transfer` call it. All
calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mec_apps.split_inference.generation import SamplingSettings
from mec_platform.domain.layers import LayerRange

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Draw:
    """A token to be sampled after row `row` of a batch; `position` is the token's in its session."""

    row: int
    position: int
    settings: SamplingSettings


@dataclass(frozen=True, slots=True)
class StageBatch:
    """Rows of a few sessions on their way through a stage.

    `content` is int32 tokens where `is_first`, else float32 [rows, hidden]: on the first stage rows that an encoder has
    made. Row r belongs to the session whose pages
    `page_table[slots[r]]` lists, and is its token `positions[r]`; rows of one session come in ascending order.
    """

    layers: LayerRange
    content: bytes
    is_first: bool
    is_last: bool
    positions: Integers
    slots: Integers
    draws: Sequence[Draw] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Hidden rows for the next stage, or a token for each draw on the last; and how long blocks and head took."""

    hidden: Floats | None
    tokens: list[int]
    blocks_s: float
    head_s: float


class StageModel(Protocol):
    """The model. It owns the KV memory and the weights that are at hand."""

    target: str
    threads: int
    page_tokens: int
    page_bytes: int
    """Bytes of the keys, and of the values, of a page in one layer: float16 [kv_heads, head_dim, page_tokens] and
    [kv_heads, page_tokens, head_dim]."""
    kv_heads: int
    kv_pages: int
    blocks: int
    page_table: Integers
    """int32 [max_sessions, pages of a whole context]; the caller fills it in place."""
    calibration_layers: int
    """Leading layers that a node without a stage measures itself with."""

    def run(self, batch: StageBatch) -> BatchResult:
        """Runs a batch through its layers; appends to the KV pages of these layers.

        Raises:
            ValueError: too many rows, or numbers outside what this model was made for.
        """

    def run_blocks(self, layers: LayerRange, hidden: Floats, positions: Integers, slots: Integers) -> Floats:
        """`hidden` [rows, hidden] after `layers`."""

    def time_head(self) -> float:
        """Seconds that head and sampling of one row take now."""

    def load_stage(self, layers: LayerRange, is_first: bool, is_last: bool) -> None:
        """Puts the weights of a stage where they are computed with, and makes room for its KV.

        Raises:
            MemoryError: there is no room; nothing has changed.
        """

    def release_layers(self, layers: LayerRange) -> None:
        """Gives KV memory and weights of `layers` back, and wipes the KV first: it tells what was said in sessions, and whoever
        has the node may not be trusted with that any more. Weights tell nothing: every node has the same package.
        """

    def release_text(self, embed: bool, head: bool) -> None:
        """Gives the weights of `embed` and `head` back, where asked to."""

    def measurable(self, layers: LayerRange) -> LayerRange | None:
        """Those of `layers`, or others of as many, that can run now; None where no layer can."""

    def read_pages(self, layer: int, pages: Sequence[int]) -> tuple[bytes, bytes]:
        """Keys and values of KV pages, `page_bytes` each, in order."""

    def write_pages(self, layer: int, pages: Sequence[int], keys: bytes, values: bytes) -> None:
        """Stores what `read_pages` gave. Raises ValueError where the layer is not loaded."""

    def wipe_pages(self, layer: int, pages: Sequence[int]) -> None:
        """Zeros in KV pages of a layer that is loaded: the session that they were of is over."""

    def wipe_scratch(self) -> None:
        """Wipes what the latest batches have left in buffers: tokens, rows and logits."""


def check_range(what: str, numbers: Integers, stop: int) -> None:
    """Kernels index with these numbers unchecked, and some of them come from the network. Raises ValueError."""
    if numbers.min() < 0 or numbers.max() >= stop:
        raise ValueError(f"{what} must be in [0, {stop}), not {numbers.min()} to {numbers.max()}")
