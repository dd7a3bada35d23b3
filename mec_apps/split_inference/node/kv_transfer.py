"""KV pages in motion: cutting a session's pages into chunks, and storing chunks that arrive. Runs in the compute thread."""

from __future__ import annotations

from dataclasses import dataclass

from mec_apps.split_inference.frames import Refusal
from mec_apps.split_inference.node.kv_pages import KvPages, KvRefusal
from mec_apps.split_inference.node.stage_model import StageModel
from mec_platform.domain.layers import LayerRange

PAGES_PER_CHUNK = 64
"""Bounds a chunk to a few megabytes for any model of the families supported."""


@dataclass(frozen=True, slots=True)
class KvPiece:
    """Pages `[first_page, first_page + n)` of one layer of one session, as raw float16."""

    session: int
    layer: int
    first_page: int
    valid_positions: int
    keys: bytes
    values: bytes


def cut_kv(
    model: StageModel, kv: KvPages, session: int, layers: LayerRange, first_position: int, last_position: int
) -> list[KvPiece]:
    """Copies whole pages that hold `[first_position, last_position)`.

    Raises:
        KvRefusal: GAP where the session does not hold these positions in all the layers.
    """
    held = kv.get(session)
    if held is None or held.valid_in(layers) < last_position:
        raise KvRefusal(Refusal.GAP, f"session {session:x} has no KV up to position {last_position} in layers {layers}")
    first, last = first_position // model.page_tokens, -(-last_position // model.page_tokens)
    pieces = []
    for layer in layers:
        for start in range(first, last, PAGES_PER_CHUNK):
            pages = held.pages[start : min(start + PAGES_PER_CHUNK, last)]
            valid = min(last_position, (start + len(pages)) * model.page_tokens)
            keys, values = model.read_pages(layer, pages)
            pieces.append(KvPiece(session, layer, start, valid, keys, values))
    return pieces


def check_piece(model: StageModel, piece: KvPiece) -> None:
    """Raises KvRefusal(BAD_FRAME) for sizes that do not fit this model; to be asked before a piece is kept for later."""
    pages, rest = divmod(len(piece.keys), model.page_bytes)
    last_page = piece.first_page + pages
    fits = (
        rest == 0
        and 1 <= pages <= PAGES_PER_CHUNK
        and len(piece.values) == len(piece.keys)
        and 0 <= piece.layer < model.blocks
        and (last_page - 1) * model.page_tokens < piece.valid_positions <= last_page * model.page_tokens
    )
    if not fits:
        raise KvRefusal(Refusal.BAD_FRAME, "a KV chunk whose sizes do not fit this node's model")


def store_kv(model: StageModel, kv: KvPages, piece: KvPiece) -> int:
    """Stores a piece and returns its bytes. Storing what is held already changes nothing: a piece that comes late, after the
    session has gone on here, must not take the newer rows of its last page.

    Raises:
        KvRefusal: BAD_FRAME for sizes that do not fit this model, GAP where an earlier piece is missing, NO_PAGES.
    """
    check_piece(model, piece)
    last_page = piece.first_page + len(piece.keys) // model.page_bytes
    layer = LayerRange(piece.layer, piece.layer + 1)
    if model.measurable(layer) != layer:
        raise KvRefusal(Refusal.GAP, f"layer {piece.layer} is not loaded on this node")
    held = kv.get(piece.session)
    have = 0 if held is None else held.valid[piece.layer]
    if piece.first_page * model.page_tokens > have:
        raise KvRefusal(Refusal.GAP, f"layer {piece.layer} holds {have} positions, the chunk starts after them")
    if have >= piece.valid_positions:
        return len(piece.keys) + len(piece.values)
    held = kv.reserve(piece.session, piece.valid_positions)
    model.write_pages(piece.layer, held.pages[piece.first_page : last_page], piece.keys, piece.values)
    kv.mark_valid(piece.session, layer, piece.valid_positions)
    return len(piece.keys) + len(piece.values)
