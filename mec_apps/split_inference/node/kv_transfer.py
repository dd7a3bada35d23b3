"""KV in motion: cutting a session's pages into pieces, and storing pieces that arrive. Runs in the compute thread.

Between two pieces frames have their turn, so a piece is small: what it takes to copy it is what a token may wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.node.kv_compression import compress, expand
from mec_apps.split_inference.node.kv_pages import KvPages, KvRefusal, SessionKv
from mec_apps.split_inference.node.stage_model import StageModel
from mec_platform.domain.layers import LayerRange

PIECE_BYTES = 512 << 10
"""A piece is no larger, where a page of one layer is not: copied in a tenth of a millisecond, while a message costs
about as much whatever it carries."""


@dataclass(frozen=True, slots=True)
class KvSpan:
    """Positions `[first, last)` of some layers: whole pages, or a part of one page."""

    layers: LayerRange
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class KvPiece:
    """A span of one session as raw float16, a layer after the other.

    In a layer whole pages follow each other as the model keeps them; a part of a page is keys [kv_heads, head_dim,
    positions] and values [kv_heads, positions, head_dim].
    """

    session: int
    span: KvSpan
    keys: bytes
    values: bytes


def spans_of(model: StageModel, layers: LayerRange, first: int, last: int) -> Iterator[KvSpan]:
    """`[first, last)` of `layers` in spans of at most PIECE_BYTES: parts of pages at both ends, whole pages between."""
    page = model.page_tokens
    start = first
    while start < last:
        # Up to the end of a page that was begun, or of the last whole page, or the tail.
        ends = -(-start // page) * page, last // page * page, last
        stop = next(end for end in ends if end > start)
        yield from _split(layers, start, min(stop, last), 2 * model.page_bytes // page, page)
        start = stop


def _split(layers: LayerRange, first: int, last: int, position_bytes: int, page: int) -> Iterator[KvSpan]:
    """Several layers together while few positions are wanted, and many positions of one layer in steps of pages."""
    step = max(PIECE_BYTES // (position_bytes * page), 1) * page
    at_once = max(PIECE_BYTES // (position_bytes * (last - first)), 1)
    for start in range(layers.start, layers.stop, at_once):
        together = LayerRange(start, min(start + at_once, layers.stop))
        for position in range(first, last, step):
            yield KvSpan(together, position, min(position + step, last))


def check_held(kv: KvPages, session: int, layers: LayerRange, last_position: int) -> SessionKv:
    """The session's bookkeeping. Raises KvRefusal(GAP) where it does not hold these positions in all the layers."""
    held = kv.get(session)
    if held is None or held.valid_in(layers) < last_position:
        raise KvRefusal(Refusal.GAP, f"session {session:x} has no KV up to position {last_position} in layers {layers}")
    return held


def cut_kv(model: StageModel, kv: KvPages, session: int, span: KvSpan) -> KvPiece:
    """Copies a span. Raises KvRefusal(GAP) where the session does not hold it."""
    held = check_held(kv, session, span.layers, span.last)
    page = model.page_tokens
    pages = held.pages[span.first // page : -(-span.last // page)]
    parts = [model.read_pages(layer, pages) for layer in span.layers]
    if (span.last - span.first) % page:
        inside = slice(span.first % page, (span.last - 1) % page + 1)
        parts = [_part(model, keys, values, inside) for keys, values in parts]
    return KvPiece(session, span, b"".join(keys for keys, _ in parts), b"".join(values for _, values in parts))


def store_kv(model: StageModel, kv: KvPages, piece: KvPiece) -> int:
    """Stores a piece and returns its bytes. Storing what is held already changes nothing: a piece that comes late, after the
    session has gone on here, must not take the newer rows of its last page.

    Raises:
        KvRefusal: BAD_FRAME for sizes that do not fit this model, GAP where an earlier piece is missing, NO_PAGES.
    """
    span, size = piece.span, len(piece.keys)
    if not _fits(model, piece):
        raise KvRefusal(Refusal.BAD_FRAME, "a KV chunk whose sizes do not fit this node's model")
    if model.measurable(span.layers) != span.layers:
        raise KvRefusal(Refusal.GAP, f"layers {span.layers} are not loaded on this node")
    held = kv.get(piece.session)
    have = 0 if held is None else held.valid_in(span.layers)
    if span.first > have:
        raise KvRefusal(Refusal.GAP, f"layers {span.layers} hold {have} positions, the chunk starts after them")
    if have < span.last:
        held = kv.reserve(piece.session, span.last)
        layer_bytes = size // len(span.layers)
        for index, layer in enumerate(span.layers):
            if held.valid[layer] < span.last:
                own = slice(index * layer_bytes, (index + 1) * layer_bytes)
                _write(model, held, layer, span, piece.keys[own], piece.values[own])
        kv.mark_valid(piece.session, span.layers, span.last)
    return size + len(piece.values)


def compress_piece(model: StageModel, piece: KvPiece) -> KvPiece:
    """The piece as it travels where its node sends int8."""
    head_dim, positions = _sizes(model, piece.span)
    return replace(
        piece,
        keys=compress(piece.keys, head_dim, positions, position_last=True),
        values=compress(piece.values, head_dim, positions, position_last=False),
    )


def expand_piece(model: StageModel, piece: KvPiece) -> KvPiece:
    """A piece that has travelled as int8, as it can be stored. Raises ValueError where it is none."""
    head_dim, positions = _sizes(model, piece.span)
    return replace(
        piece,
        keys=expand(piece.keys, head_dim, positions, position_last=True),
        values=expand(piece.values, head_dim, positions, position_last=False),
    )


def _sizes(model: StageModel, span: KvSpan) -> tuple[int, int]:
    """Values of a head, and positions that are one array's: those of a page, or of a part of one."""
    positions = (span.last - span.first) % model.page_tokens or model.page_tokens
    return model.page_bytes // (2 * model.kv_heads * model.page_tokens), positions


def _fits(model: StageModel, piece: KvPiece) -> bool:
    span, page = piece.span, model.page_tokens
    positions = span.last - span.first
    whole = span.first % page == 0 and span.last % page == 0
    return (
        positions >= 1
        and (whole or span.first // page == (span.last - 1) // page)
        and span.layers.stop <= model.blocks
        and len(piece.keys) == len(piece.values) == len(span.layers) * positions * (model.page_bytes // page)
    )


def _write(model: StageModel, held: SessionKv, layer: int, span: KvSpan, keys: bytes, values: bytes) -> None:
    page = model.page_tokens
    pages = held.pages[span.first // page : -(-span.last // page)]
    if (span.last - span.first) % page:
        whole_keys, whole_values = (array.copy() for array in _arrays(model, *model.read_pages(layer, pages), page))
        inside = slice(span.first % page, (span.last - 1) % page + 1)
        part_keys, part_values = _arrays(model, keys, values, span.last - span.first)
        whole_keys[:, :, inside], whole_values[:, inside] = part_keys, part_values
        keys, values = whole_keys.tobytes(), whole_values.tobytes()
    model.write_pages(layer, pages, keys, values)


def _part(model: StageModel, keys: bytes, values: bytes, inside: slice) -> tuple[bytes, bytes]:
    whole_keys, whole_values = _arrays(model, keys, values, model.page_tokens)
    return whole_keys[:, :, inside].tobytes(), whole_values[:, inside].tobytes()


def _arrays(
    model: StageModel, keys: bytes, values: bytes, positions: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Positions of one page in one layer: [kv_heads, head_dim, positions] and [kv_heads, positions, head_dim]."""
    heads = model.kv_heads
    return (
        np.frombuffer(keys, np.float16).reshape(heads, -1, positions),
        np.frombuffer(values, np.float16).reshape(heads, positions, -1),
    )
