"""Pages of sessions that are over: wiped before anybody gets them again, a piece at a time, and never those of others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mec_apps.split_inference.node import page_wiping
from mec_apps.split_inference.node.kv_pages import KvPages
from mec_apps.split_inference.node.page_wiping import PageWiper
from mec_platform.domain.layers import LayerRange

BLOCKS, PAGES, PAGE_TOKENS, CONTEXT = 3, 9, 4, 16


class Memory:
    """KV of a model, a number for each position, and a queue as the compute thread has it."""

    page_tokens = PAGE_TOKENS
    page_bytes = page_wiping.PIECE_BYTES  # so that a piece is one page

    def __init__(self) -> None:
        self.kv = np.zeros((BLOCKS, PAGES, PAGE_TOKENS), np.int64)
        self.table = np.zeros((4, CONTEXT // PAGE_TOKENS), np.int32)
        self.pages = KvPages(self.table, PAGES, BLOCKS, PAGE_TOKENS, CONTEXT)
        self.jobs: deque[Callable[[], None]] = deque()
        self.pages.wiper = PageWiper(self, self.pages.give_back, self.jobs.append)  # type: ignore[arg-type]

    def wipe_pages(self, layer: int, pages: Sequence[int]) -> None:
        self.kv[layer, list(pages)] = 0

    def run(self, session: int, layers: LayerRange, positions: int) -> None:
        held = self.pages.extend(session, layers, 0, positions)
        for layer in layers:
            for index, page in enumerate(held.pages):
                self.kv[layer, page, : max(0, positions - index * PAGE_TOKENS)] = session
        self.pages.mark_valid(session, layers, positions)

    def work(self) -> None:
        while self.jobs:
            self.jobs.popleft()()


def test_a_session_that_has_ended_is_wiped_in_pieces_and_its_pages_are_free_then() -> None:
    memory = Memory()
    memory.run(1, LayerRange(0, 2), 9)
    memory.run(2, LayerRange(0, 3), 5)
    assert memory.pages.end(1) == 3
    assert memory.pages.used == 5  # not before they tell nothing
    memory.jobs.popleft()()
    assert (memory.kv == 1).sum() in {9 + 8, 9 + 5}  # one page of one layer
    memory.work()
    assert not (memory.kv == 1).any()
    assert (memory.kv == 2).sum() == 3 * 5
    assert memory.pages.used == 2


def test_who_cannot_wait_for_pages_has_the_wiping_finished() -> None:
    memory = Memory()
    memory.run(1, LayerRange(0, 3), 16)
    memory.run(2, LayerRange(0, 3), 16)
    memory.pages.end(1)
    held = memory.pages.reserve(3, 16)  # of eight pages four are held, and four wait to be wiped
    assert not memory.kv[:, held.pages].any()
    memory.work()
    assert memory.pages.used == 8


def test_layers_that_were_given_back_are_not_written_to() -> None:
    memory = Memory()
    memory.run(1, LayerRange(0, 3), 16)
    memory.pages.end(1)
    memory.pages.forget_layers(LayerRange(1, 3))
    memory.kv[1:] = 7  # whose else it is by now
    memory.work()
    assert not (memory.kv[0] == 1).any()
    assert (memory.kv[1:] == 7).all()
    assert memory.pages.used == 0


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["run", "end", "work"]), st.integers(1, 8)),
        max_size=40,
    )
)
def test_whoever_gets_a_page_finds_nothing_in_it(steps: list[tuple[int, str, int]]) -> None:
    memory, live = Memory(), dict[int, int]()
    for session, (which, what, number) in enumerate(steps, 1):
        match what:
            case "run" if len(live) < 2:
                held = memory.pages.reserve(session, number)
                assert not memory.kv[:, held.pages].any()
                memory.run(session, LayerRange(0, 3), number)
                live[session] = number
            case "end" if live:
                ended = list(live)[which % len(live)]
                memory.pages.end(ended)
                del live[ended]
            case "work" if memory.jobs:
                memory.jobs.popleft()()
            case _:
                pass
        for each, positions in live.items():
            assert (memory.kv == each).sum() == 3 * positions
    for session in list(live):
        memory.pages.end(session)
    memory.work()
    assert not memory.kv.any()
    assert memory.pages.used == 0
