"""KV pages of sessions that are over are wiped before anybody gets them again: they tell what was said.

Wiping a long session takes some milliseconds, for which the tokens of others would wait. So it is done a piece at a time, and
frames have their turn between two pieces; whoever cannot wait for pages has it finished. Runs in the compute thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mec_apps.split_inference.node.stage_model import StageModel
from mec_platform.domain.layers import LayerRange

PIECE_BYTES = 1 << 20
"""Zeroed in a tenth of a millisecond: what a token may wait for it."""


@dataclass(slots=True)
class _Retired:
    """Pages to give back, and of each layer how many of the first ones were written to."""

    pages: Sequence[int]
    written: dict[int, int]


class PageWiper:
    """`later` queues a job behind the frames that wait; `give_back` takes pages that are wiped."""

    def __init__(
        self, model: StageModel, give_back: Callable[[Sequence[int]], None], later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._model = model
        self._give_back = give_back
        self._later = later
        self._retired: deque[_Retired] = deque()

    def retire(self, pages: Sequence[int], valid: Sequence[int]) -> None:
        """Takes the pages of a session that is over; `valid[layer]` positions of it were stored."""
        written = {
            layer: -(-positions // self._model.page_tokens) for layer, positions in enumerate(valid) if positions
        }
        self._retired.append(_Retired(pages, written))
        if len(self._retired) == 1:
            self._later(self._wipe_piece)

    def forget_layers(self, layers: LayerRange) -> None:
        """The KV memory of these layers was given back, wiped."""
        for each in self._retired:
            each.written = {layer: count for layer, count in each.written.items() if layer not in layers}

    def finish(self) -> None:
        """Wipes and gives back everything at once."""
        while self._retired:
            self._wipe_some(self._retired[0])

    def _wipe_piece(self) -> None:
        if self._retired:  # else somebody could not wait
            self._wipe_some(self._retired[0])
        if self._retired:
            self._later(self._wipe_piece)

    def _wipe_some(self, retired: _Retired) -> None:
        """Wipes one piece; pages are given back with their last."""
        at_once = max(PIECE_BYTES // (2 * self._model.page_bytes), 1)
        while retired.written and at_once > 0:
            layer, count = next(iter(retired.written.items()))
            first = max(count - at_once, 0)
            self._model.wipe_pages(layer, retired.pages[first:count])
            at_once -= count - first
            if first:
                retired.written[layer] = first
            else:
                del retired.written[layer]
        if not retired.written:
            self._retired.popleft()
            self._give_back(retired.pages)
