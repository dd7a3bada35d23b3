"""How tests run a compiled model: one session, or a few, over chosen cuts and chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.build import CompiledModel as CompiledDirs
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_platform.domain.layers import LayerRange, ranges_from_cuts


def open_model(dirs: CompiledDirs, *, threads: int = 2, sessions: int = 4, context: int = 256) -> CompiledModel:
    """A model whose sessions own pages in shuffled order; room for all of them."""
    package = ModelPackage.open(dirs.package_dir)
    pages = sessions * -(-context // 16)
    model = CompiledModel(
        package,
        dirs.artefact_dir,
        threads=threads,
        kv_pages=pages,
        max_sessions=sessions,
        max_rows=context,
        context=context,
    )
    model.page_table[:] = np.random.default_rng(3).permutation(pages).reshape(sessions, -1)
    return model


def run_tokens(
    model: CompiledModel,
    tokens: Sequence[int],
    *,
    start: int = 0,
    slot: int = 0,
    cuts: Sequence[int] = (),
    blocks: int,
) -> np.ndarray:
    """Hidden rows of `tokens` at positions from `start`, through all blocks, cut at `cuts`."""
    positions = np.arange(start, start + len(tokens))
    return run_rows(model, tokens, positions, np.full(len(tokens), slot), cuts=cuts, blocks=blocks)


def run_rows(
    model: CompiledModel,
    tokens: Sequence[int],
    positions: np.ndarray,
    slots: np.ndarray,
    *,
    cuts: Sequence[int] = (),
    blocks: int,
) -> np.ndarray:
    """Hidden rows of a mixed batch."""
    hidden = model.embed(np.array(tokens, np.int32))
    ranges: tuple[LayerRange, ...] = ranges_from_cuts(blocks, cuts)
    for layers in ranges:
        hidden = model.run_blocks(layers, hidden, positions, slots)
    return hidden
