"""Which KV pages of the node belong to which session, and up to where each layer of a session is valid.

A page holds `page_tokens` positions and has the same index in every layer, so a session needs one row of the page table
however many layers it has here. Counterpart: `compiled_model` owns the page tensors. Not thread-safe: the compute
thread owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mec_apps.split_inference.frames import Refusal
from mec_platform.domain.layers import LayerRange

SCRATCH_SLOT = 0
"""Row of the page table, and page, that warm-up and calibration write to; no session ever gets them."""


class KvRefusal(Exception):
    """The session cannot take these positions; `code` says why in the terms of the data plane."""

    def __init__(self, code: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class SessionKv:
    """Pages of one session; `valid[layer]` counts the leading positions whose KV is stored.

    A plain list: for the few layers of a stage it is several times quicker than an array, once per token and hop.
    """

    slot: int
    valid: list[int]
    pages: list[int] = field(default_factory=list)

    def valid_in(self, layers: LayerRange) -> int:
        """Leading positions that every one of `layers` holds."""
        return min(self.valid[layers.start : layers.stop])


class Wiper(Protocol):
    """What pages of ended sessions go through before they are free; see `page_wiping`."""

    def retire(self, pages: Sequence[int], valid: Sequence[int]) -> None: ...

    def forget_layers(self, layers: LayerRange) -> None: ...

    def finish(self) -> None: ...


class KvPages:
    """Page allocator and bookkeeping for all sessions of a node. With a `wiper`, pages come back by `give_back`, wiped."""

    wiper: Wiper | None = None

    def __init__(
        self, page_table: npt.NDArray[np.int32], pages: int, blocks: int, page_tokens: int, context: int
    ) -> None:
        self._page_table = page_table
        self._blocks = blocks
        self._page_tokens = page_tokens
        self._context = context
        self._free_pages = list(range(pages - 1, SCRATCH_SLOT, -1))
        self._free_slots = list(range(len(page_table) - 1, SCRATCH_SLOT, -1))
        self._total = len(self._free_pages)
        self._sessions: dict[int, SessionKv] = {}

    @property
    def used(self) -> int:
        """Pages that sessions hold."""
        return self._total - len(self._free_pages)

    @property
    def total(self) -> int:
        """Pages that sessions can hold."""
        return self._total

    @property
    def sessions(self) -> tuple[int, ...]:
        """Ids of the sessions that hold pages."""
        return tuple(self._sessions)

    def get(self, session: int) -> SessionKv | None:
        """Bookkeeping of a session, or None where it is unknown."""
        return self._sessions.get(session)

    def extend(self, session: int, layers: LayerRange, position: int, rows: int) -> SessionKv:
        """Makes room for rows at `[position, position + rows)`; the positions before must be valid in `layers`.

        Raises:
            KvRefusal: GAP where earlier positions are missing, NO_PAGES where pages or slots have run out.
        """
        kv = self._sessions.get(session)
        valid = 0 if kv is None else kv.valid_in(layers)
        if position > valid:
            raise KvRefusal(
                Refusal.GAP, f"session {session:x}: position {position}, but layers {layers} end at {valid}"
            )
        return self.reserve(session, position + rows)

    def reserve(self, session: int, positions: int) -> SessionKv:
        """Gives the session pages for `positions` positions. Raises KvRefusal(NO_PAGES), then nothing has changed."""
        if positions > self._context:
            raise KvRefusal(Refusal.NO_PAGES, f"{positions} positions; this node's context is {self._context}")
        kv = self._sessions.get(session)
        have = 0 if kv is None else len(kv.pages)
        missing = -(-positions // self._page_tokens) - have
        if missing > len(self._free_pages) and self.wiper is not None:
            self.wiper.finish()
        if missing > len(self._free_pages):
            raise KvRefusal(
                Refusal.NO_PAGES, f"{missing} KV pages needed, {len(self._free_pages)} of {self._total} free"
            )
        if kv is None:
            if not self._free_slots:
                raise KvRefusal(Refusal.NO_PAGES, f"all {len(self._page_table) - 1} session slots are taken")
            kv = SessionKv(self._free_slots.pop(), [0] * self._blocks)
            self._sessions[session] = kv
        for _ in range(missing):
            page = self._free_pages.pop()
            self._page_table[kv.slot, len(kv.pages)] = page
            kv.pages.append(page)
        return kv

    def mark_valid(self, session: int, layers: LayerRange, positions: int) -> None:
        """Records that `layers` hold the first `positions` positions. Repeating an older frame takes nothing back."""
        valid = self._sessions[session].valid
        valid[layers.start : layers.stop] = [max(held, positions) for held in valid[layers.start : layers.stop]]

    def forget_layers(self, layers: LayerRange) -> None:
        """The KV memory of these layers was given back: no session has valid positions there any more."""
        for kv in self._sessions.values():
            kv.valid[layers.start : layers.stop] = [0] * len(layers)
        if self.wiper is not None:
            self.wiper.forget_layers(layers)

    def end(self, session: int) -> int:
        """Frees the pages of a session and returns how many; unknown sessions free none."""
        kv = self._sessions.pop(session, None)
        if kv is None:
            return 0
        self._free_slots.append(kv.slot)
        if self.wiper is None:
            self.give_back(kv.pages)
        else:
            self.wiper.retire(kv.pages, kv.valid)
        return len(kv.pages)

    def give_back(self, pages: Sequence[int]) -> None:
        """Pages that no session holds, and that tell nothing, are free from now on."""
        self._free_pages.extend(reversed(pages))
