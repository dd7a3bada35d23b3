"""How tests run a stage's model, on whatever it computes: some tokens of one session, in any pieces."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.build import CompiledModel as CompiledDirs
from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.load_model import load_model
from mec_apps.split_inference.node.machine import read_machine
from mec_apps.split_inference.node.stage_model import StageBatch, StageModel
from mec_platform.domain.layers import LayerRange
from tests.compiler.conftest import VOCAB

CONTEXT, SESSIONS = 384, 4
TOKENS = np.random.default_rng(11).integers(0, VOCAB, 300).astype(np.int32)


def open_model(dirs: CompiledDirs, **limits: int) -> Any:
    """A model with two sessions' pages in shuffled order."""
    sizes = {"threads": 2, "kv_pages": 100, "max_sessions": SESSIONS, "max_rows": 320, "context": CONTEXT} | limits
    model = load_model(ModelPackage.open(dirs.package_dir), dirs.artefact_dir, read_machine(), **sizes)
    model.page_table[:] = np.random.default_rng(3).permutation(100)[: model.page_table.size].reshape(SESSIONS, -1)
    return model


def hidden_of(
    model: StageModel, layers: LayerRange, start: int, stop: int, slot: int = 0, content: bytes | None = None
) -> np.ndarray:
    """Hidden rows of TOKENS[start:stop] of one session; `content` where they come from an earlier stage."""
    positions = np.arange(start, stop, dtype=np.int32)
    is_first = content is None
    content = TOKENS[start:stop].tobytes() if content is None else content
    result = model.run(StageBatch(layers, content, is_first, False, positions, np.full(stop - start, slot, np.int32)))
    assert result.hidden is not None
    return result.hidden.copy()
