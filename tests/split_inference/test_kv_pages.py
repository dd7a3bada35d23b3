"""KV pages: whatever sessions do, no page has two owners, none gets lost, and a refusal changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.node.kv_pages import SCRATCH_SLOT, KvPages, KvRefusal
from mec_platform.domain.layers import LayerRange

BLOCKS = 4
PAGE_TOKENS = 4
CONTEXT = 32
PAGES = 13
SLOTS = 5

layer_ranges = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)).filter(lambda r: r[0] < r[1])


def make_pages() -> KvPages:
    table = np.zeros((SLOTS, CONTEXT // PAGE_TOKENS), np.int32)
    return KvPages(table, PAGES, BLOCKS, PAGE_TOKENS, CONTEXT)


def whole() -> LayerRange:
    return LayerRange(0, BLOCKS)


def run_frame(kv: KvPages, session: int, layers: LayerRange, position: int, rows: int) -> None:
    """What the compute thread does with a frame."""
    kv.extend(session, layers, position, rows)
    kv.mark_valid(session, layers, position + rows)


class PageLife(RuleBasedStateMachine):
    """Random frames, imports, ends and plan changes, beside the plainest model of what must be so."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.table = np.zeros((SLOTS, CONTEXT // PAGE_TOKENS), np.int32)
        self.kv = KvPages(self.table, PAGES, BLOCKS, PAGE_TOKENS, CONTEXT)
        self.valid: dict[int, list[int]] = {}
        self.reserved: dict[int, int] = {}

    @rule(target=sessions, session=st.integers(1, 8))
    def open_session(self, session: int) -> int:
        return session

    @rule(session=sessions, layers=layer_ranges, position=st.integers(0, CONTEXT + 2), rows=st.integers(1, 9))
    def run_a_frame(self, session: int, layers: tuple[int, int], position: int, rows: int) -> None:
        expected = self._expected_refusal(session, layers, position, rows)
        before = self._picture()
        if expected is None:
            run_frame(self.kv, session, LayerRange(*layers), position, rows)
            self._reserve(session, position + rows)
            held = self.valid[session]
            for layer in range(*layers):
                held[layer] = max(held[layer], position + rows)
        else:
            with pytest.raises(KvRefusal) as refusal:
                self.kv.extend(session, LayerRange(*layers), position, rows)
            assert refusal.value.code is expected
            assert self._picture() == before

    @rule(session=sessions, layers=layer_ranges, rows=st.integers(1, 9))
    def append_a_frame(self, session: int, layers: tuple[int, int], rows: int) -> None:
        position = min(self.valid.get(session, [0] * BLOCKS)[slice(*layers)])
        self.run_a_frame(session, layers, position, rows)

    @rule(session=sessions, positions=st.integers(1, CONTEXT + 1))
    def reserve_for_an_import(self, session: int, positions: int) -> None:
        before = self._picture()
        if self._no_room(session, positions):
            with pytest.raises(KvRefusal) as refusal:
                self.kv.reserve(session, positions)
            assert refusal.value.code is Refusal.NO_PAGES
            assert self._picture() == before
        else:
            self.kv.reserve(session, positions)
            self._reserve(session, positions)

    @rule(layers=layer_ranges)
    def forget_layers(self, layers: tuple[int, int]) -> None:
        self.kv.forget_layers(LayerRange(*layers))
        for held in self.valid.values():
            held[slice(*layers)] = [0] * (layers[1] - layers[0])

    @rule(target=sessions, session=consumes(sessions))
    def end(self, session: int) -> object:
        held = self.reserved.pop(session, 0)
        self.valid.pop(session, None)
        assert self.kv.end(session) == held
        assert self.kv.end(session) == 0  # told twice
        return multiple()

    @invariant()
    def every_page_is_free_or_has_one_owner(self) -> None:
        owned = [page for session in self.kv.sessions for page in self._pages(session)]
        assert len(owned) == len(set(owned)) == self.kv.used
        assert SCRATCH_SLOT not in owned
        assert set(owned) <= set(range(1, PAGES))
        assert self.kv.total == PAGES - 1

    @invariant()
    def every_session_has_a_slot_of_its_own(self) -> None:
        slots = [kv.slot for session in self.kv.sessions if (kv := self.kv.get(session)) is not None]
        assert len(slots) == len(set(slots))
        assert SCRATCH_SLOT not in slots

    @invariant()
    def the_page_table_shows_what_sessions_hold(self) -> None:
        for session in self.kv.sessions:
            kv = self.kv.get(session)
            assert kv is not None
            assert self.table[kv.slot, : len(kv.pages)].tolist() == kv.pages

    @invariant()
    def sessions_hold_what_the_model_says(self) -> None:
        assert set(self.kv.sessions) == set(self.reserved)
        for session, pages in self.reserved.items():
            kv = self.kv.get(session)
            assert kv is not None
            assert len(kv.pages) == pages
            assert list(kv.valid) == self.valid[session]
            assert max(self.valid[session]) <= pages * PAGE_TOKENS

    def _pages(self, session: int) -> list[int]:
        kv = self.kv.get(session)
        assert kv is not None
        return kv.pages

    def _reserve(self, session: int, positions: int) -> None:
        pages = -(-positions // PAGE_TOKENS)
        self.reserved[session] = max(self.reserved.get(session, 0), pages)
        self.valid.setdefault(session, [0] * BLOCKS)

    def _no_room(self, session: int, positions: int) -> bool:
        free = PAGES - 1 - sum(self.reserved.values())
        more = -(-positions // PAGE_TOKENS) - self.reserved.get(session, 0)
        no_slot = session not in self.reserved and len(self.reserved) == SLOTS - 1
        return positions > CONTEXT or more > free or no_slot

    def _expected_refusal(self, session: int, layers: tuple[int, int], position: int, rows: int) -> Refusal | None:
        if position > min(self.valid.get(session, [0] * BLOCKS)[slice(*layers)]):
            return Refusal.GAP
        return Refusal.NO_PAGES if self._no_room(session, position + rows) else None

    def _picture(self) -> object:
        held = {s: (kv.slot, list(kv.valid), list(kv.pages)) for s in self.kv.sessions if (kv := self.kv.get(s))}
        return held, self.kv.used, self.table.tolist()


TestPageLife = PageLife.TestCase


def test_a_repeated_frame_takes_no_page_and_takes_nothing_back() -> None:
    kv = make_pages()
    run_frame(kv, 1, whole(), 0, 6)
    run_frame(kv, 1, whole(), 6, 1)
    run_frame(kv, 1, whole(), 0, 6)
    held = kv.get(1)
    assert held is not None
    assert held.valid == [7] * BLOCKS
    assert kv.used == 2


def test_a_gap_in_one_layer_of_the_range_is_refused_by_name() -> None:
    kv = make_pages()
    run_frame(kv, 0xAB, LayerRange(0, 2), 0, 5)
    run_frame(kv, 0xAB, LayerRange(0, 2), 5, 1)
    with pytest.raises(KvRefusal, match=r"session ab: position 5, but layers \[1, 3\) end at 0") as refusal:
        kv.extend(0xAB, LayerRange(1, 3), 5, 1)
    assert refusal.value.code is Refusal.GAP


def test_a_session_longer_than_the_context_is_refused() -> None:
    kv = make_pages()
    run_frame(kv, 1, whole(), 0, CONTEXT)
    with pytest.raises(KvRefusal, match=f"this node's context is {CONTEXT}") as refusal:
        kv.extend(1, whole(), CONTEXT, 1)
    assert refusal.value.code is Refusal.NO_PAGES


def test_slots_run_out_before_pages_where_sessions_are_many_and_short() -> None:
    kv = make_pages()
    for session in range(1, SLOTS):
        run_frame(kv, session, whole(), 0, 1)
    with pytest.raises(KvRefusal, match="slots are taken"):
        kv.extend(SLOTS, whole(), 0, 1)
    kv.end(1)
    run_frame(kv, SLOTS, whole(), 0, 1)
    assert set(kv.sessions) == {2, 3, 4, SLOTS}


def test_pages_of_an_ended_session_serve_the_next_one() -> None:
    kv = make_pages()
    run_frame(kv, 1, whole(), 0, CONTEXT)
    with pytest.raises(KvRefusal, match="KV pages needed"):
        kv.extend(2, whole(), 0, CONTEXT)
    assert kv.end(1) == CONTEXT // PAGE_TOKENS
    run_frame(kv, 2, whole(), 0, CONTEXT)
    assert kv.used == CONTEXT // PAGE_TOKENS


def test_forgotten_layers_must_be_filled_from_the_start_again() -> None:
    kv = make_pages()
    run_frame(kv, 1, whole(), 0, 8)
    kv.forget_layers(LayerRange(2, 3))
    with pytest.raises(KvRefusal) as refusal:
        kv.extend(1, whole(), 8, 1)
    assert refusal.value.code is Refusal.GAP
    kv.extend(1, LayerRange(0, 2), 8, 1)
