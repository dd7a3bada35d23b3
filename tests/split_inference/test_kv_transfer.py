"""KV in motion: what is cut on one node and stored on another is the same bytes, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.node import kv_transfer
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.kv_pages import KvPages, KvRefusal
from mec_apps.split_inference.node.kv_transfer import (
    KvPiece,
    KvSpan,
    compress_piece,
    cut_kv,
    expand_piece,
    spans_of,
    store_kv,
)
from mec_platform.domain.layers import LayerRange

BLOCKS = 3
PAGE_TOKENS = 4
PAGES = 24
CONTEXT = 64
SESSION = 0x500000001
PAGE_BYTES = 2 * 2 * PAGE_TOKENS * 2


@dataclass
class Memory:
    """The KV tensors of a CompiledModel: two heads of two values."""

    page_tokens: int = PAGE_TOKENS
    page_bytes: int = PAGE_BYTES
    kv_heads: int = 2
    blocks: int = BLOCKS
    keys: npt.NDArray[np.float16] = field(
        default_factory=lambda: np.zeros((BLOCKS, PAGES, 2, 2, PAGE_TOKENS), np.float16)
    )
    values: npt.NDArray[np.float16] = field(
        default_factory=lambda: np.zeros((BLOCKS, PAGES, 2, PAGE_TOKENS, 2), np.float16)
    )
    page_table: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((6, CONTEXT // PAGE_TOKENS), np.int32))
    read_pages = CompiledModel.read_pages
    write_pages = CompiledModel.write_pages
    measurable = CompiledModel.measurable


class Node:
    """Memory and bookkeeping of one node; `other` sessions make its pages start elsewhere."""

    def __init__(self, other_pages: int = 0) -> None:
        self.memory = Memory()
        self.kv = KvPages(self.memory.page_table, PAGES, BLOCKS, PAGE_TOKENS, CONTEXT)
        if other_pages:
            self.kv.reserve(99, other_pages * PAGE_TOKENS)

    def fill(self, positions: int, layers: LayerRange, seed: int = 1) -> None:
        """Random bits, NaN among them, as if a model had run the positions."""
        held = self.kv.extend(SESSION, layers, 0, positions)
        bits = np.random.default_rng(seed)
        for layer in layers:
            for array in (self.memory.keys, self.memory.values):
                random = bits.integers(0, 2**16, array[layer, held.pages].shape, np.uint16)
                array[layer, held.pages] = random.view(np.float16)
        self.kv.mark_valid(SESSION, layers, positions)

    def cut(self, layers: LayerRange, first: int, last: int) -> list[KvPiece]:
        spans = spans_of(self.memory, layers, first, last)  # type: ignore[arg-type]
        return [cut_kv(self.memory, self.kv, SESSION, span) for span in spans]  # type: ignore[arg-type]

    def store(self, piece: KvPiece) -> int:
        return store_kv(self.memory, self.kv, piece)  # type: ignore[arg-type]

    def rows_of(self, layer: int, first: int, last: int) -> tuple[bytes, bytes]:
        """Keys and values of positions, one after the other."""
        held = self.kv.get(SESSION)
        assert held is not None
        keys = self.memory.keys[layer, held.pages].transpose(0, 3, 1, 2).reshape(-1, 2, 2)[first:last]
        values = self.memory.values[layer, held.pages].transpose(0, 2, 1, 3).reshape(-1, 2, 2)[first:last]
        return keys.tobytes(), values.tobytes()

    def picture(self) -> object:
        return self.memory.keys.tobytes(), self.memory.values.tobytes(), self.kv.used, self.kv.sessions


@given(
    positions=st.integers(1, CONTEXT),
    cuts=st.lists(st.integers(0, CONTEXT), max_size=4),
    elsewhere=st.integers(0, 6),
    piece_bytes=st.sampled_from([1, PAGE_BYTES, 2 * PAGE_BYTES, 5 * PAGE_BYTES, 64 * PAGE_BYTES]),
    data=st.data(),
)
def test_any_session_sent_in_any_steps_arrives_bit_for_bit(
    positions: int, cuts: list[int], elsewhere: int, piece_bytes: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, BLOCKS - 1))
    layers = LayerRange(start, data.draw(st.integers(start + 1, BLOCKS)))
    source, target = Node(), Node(elsewhere)
    source.fill(positions, layers)
    first = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_transfer, "PIECE_BYTES", piece_bytes)
        for last in sorted({min(cut, positions) for cut in cuts if cut} | {positions}):
            for piece in source.cut(layers, first, last):
                one_page_of_a_layer = len(piece.span.layers) == 1 and piece.span.last - piece.span.first <= PAGE_TOKENS
                assert len(piece.keys) + len(piece.values) <= piece_bytes or one_page_of_a_layer
                assert target.store(piece) == len(piece.keys) + len(piece.values)
            first = last
    held = target.kv.get(SESSION)
    assert held is not None
    assert held.valid == [positions if layer in layers else 0 for layer in range(BLOCKS)]
    for layer in layers:
        assert target.rows_of(layer, 0, positions) == source.rows_of(layer, 0, positions)


def test_storing_a_piece_again_changes_nothing() -> None:
    source, target = Node(), Node()
    source.fill(10, LayerRange(0, BLOCKS))
    pieces = source.cut(LayerRange(0, BLOCKS), 0, 10)
    for piece in pieces:
        target.store(piece)
    before = target.picture()
    for piece in pieces:
        target.store(piece)
    assert target.picture() == before


def test_a_piece_that_comes_late_leaves_what_the_session_has_written_since() -> None:
    source, target = Node(), Node()
    source.fill(10, LayerRange(0, BLOCKS))
    target.fill(11, LayerRange(0, BLOCKS))
    before = target.picture()
    for piece in source.cut(LayerRange(0, BLOCKS), 0, 10):
        target.store(piece)
    assert target.picture() == before


def test_only_the_positions_that_are_asked_for_are_cut() -> None:
    source = Node()
    source.fill(4 * PAGE_TOKENS, LayerRange(0, 2))
    pieces = source.cut(LayerRange(0, 2), PAGE_TOKENS + 1, 3 * PAGE_TOKENS + 2)
    assert [(piece.span.first, piece.span.last) for piece in pieces] == [(5, 8), (8, 12), (12, 14)]
    assert all(piece.span.layers == LayerRange(0, 2) for piece in pieces)
    assert sum(len(piece.keys) for piece in pieces) == 2 * (3 + 4 + 2) * PAGE_BYTES // PAGE_TOKENS


def test_kv_that_travelled_as_int8_is_off_by_less_than_half_a_step_and_takes_less() -> None:
    source, target = Node(), Node()
    layers, positions = LayerRange(0, BLOCKS), 2 * PAGE_TOKENS + 3
    held = source.kv.extend(SESSION, layers, 0, positions)
    bits = np.random.default_rng(3)
    for array in (source.memory.keys, source.memory.values):
        array[:, held.pages] = bits.normal(size=array[:, held.pages].shape) * 10.0 ** bits.integers(-3, 4)
    source.kv.mark_valid(SESSION, layers, positions)
    for piece in source.cut(layers, 0, positions):
        packed = compress_piece(source.memory, piece)  # type: ignore[arg-type]
        target.store(expand_piece(target.memory, packed))  # type: ignore[arg-type]
    moved = target.kv.get(SESSION)
    assert moved is not None
    for layer in layers:
        for sent, came in zip(source.rows_of(layer, 0, positions), target.rows_of(layer, 0, positions), strict=True):
            rows, arrived = (np.frombuffer(each, np.float16).reshape(-1, 2).astype(float) for each in (sent, came))
            step = np.abs(rows).max(axis=1, keepdims=True) / 127
            assert (np.abs(rows - arrived) <= 0.5 * step + 1e-3 * np.abs(rows) + 1e-7).all()


def test_what_is_no_compressed_kv_is_refused() -> None:
    with pytest.raises(ValueError, match="no compressed KV"):
        expand_piece(Memory(), replace(GOOD, keys=b"12345"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("layers", "last"), [(LayerRange(0, 1), 9), (LayerRange(0, 2), 8), (LayerRange(1, 2), 1)])
def test_positions_that_the_node_does_not_hold_are_not_cut(layers: LayerRange, last: int) -> None:
    source = Node()
    source.fill(8, LayerRange(0, 1))
    with pytest.raises(KvRefusal, match="has no KV up to") as refusal:
        source.cut(layers, 0, last)
    assert refusal.value.code is Refusal.GAP


def test_an_unknown_session_is_not_cut() -> None:
    with pytest.raises(KvRefusal) as refusal:
        Node().cut(LayerRange(0, 1), 0, 1)
    assert refusal.value.code is Refusal.GAP


def piece_of(first: int, last: int, layers: LayerRange = LayerRange(0, 1)) -> KvPiece:  # noqa: B008 - a frozen value
    size = len(layers) * (last - first) * PAGE_BYTES // PAGE_TOKENS
    return KvPiece(SESSION, KvSpan(layers, first, last), bytes(size), bytes(size))


GOOD = piece_of(0, 2 * PAGE_TOKENS)


@pytest.mark.parametrize(
    "piece",
    [
        replace(GOOD, keys=GOOD.keys[:-1]),
        replace(GOOD, keys=b"", values=b""),
        replace(GOOD, values=GOOD.values[:PAGE_BYTES]),
        replace(GOOD, values=GOOD.values + b"x"),
        replace(GOOD, span=replace(GOOD.span, layers=LayerRange(BLOCKS, BLOCKS + 1))),
        replace(GOOD, span=replace(GOOD.span, layers=LayerRange(0, 2))),
        replace(GOOD, span=replace(GOOD.span, layers=LayerRange(0, 2**32 - 1))),
        replace(GOOD, span=replace(GOOD.span, last=0)),
        replace(GOOD, span=replace(GOOD.span, last=PAGE_TOKENS)),
        piece_of(0, 2 * PAGE_TOKENS - 1),  # neither whole pages nor a part of one
        piece_of(PAGE_TOKENS - 1, 2 * PAGE_TOKENS),
        piece_of(1, PAGE_TOKENS + 1),
        replace(GOOD, span=KvSpan(LayerRange(0, 1), 5, 4)),
    ],
)
def test_a_piece_whose_sizes_do_not_fit_the_model_is_refused(piece: KvPiece) -> None:
    node = Node()
    before = node.picture()
    with pytest.raises(KvRefusal) as refusal:
        node.store(piece)
    assert refusal.value.code is Refusal.BAD_FRAME
    assert node.picture() == before


def test_a_piece_behind_a_missing_one_is_refused_and_changes_nothing() -> None:
    node = Node()
    before = node.picture()
    with pytest.raises(KvRefusal, match="the chunk starts after them") as refusal:
        node.store(piece_of(PAGE_TOKENS, 3 * PAGE_TOKENS))
    assert refusal.value.code is Refusal.GAP
    assert node.picture() == before


def test_a_full_node_refuses_a_piece_and_changes_nothing() -> None:
    node = Node(other_pages=CONTEXT // PAGE_TOKENS)
    node.kv.reserve(98, (PAGES - 2 - CONTEXT // PAGE_TOKENS) * PAGE_TOKENS)
    before = node.picture()
    with pytest.raises(KvRefusal) as refusal:
        node.store(GOOD)
    assert refusal.value.code is Refusal.NO_PAGES
    assert node.picture() == before


def test_a_longer_session_than_the_context_is_refused() -> None:
    node = Node()
    node.fill(CONTEXT, LayerRange(0, 1))
    with pytest.raises(KvRefusal, match="context") as refusal:
        node.store(piece_of(CONTEXT - PAGE_TOKENS, CONTEXT + PAGE_TOKENS))
    assert refusal.value.code is Refusal.NO_PAGES
