"""Runs an artefact on the machine that it is started on: PACKAGE RESULTS.npz TOKENS ARTEFACT..., tokens separated by commas.

Results hold, by the name of the artefact's folder, the logits of all tokens at once, and of the same one by one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_platform.domain.layers import LayerRange


def run(package: ModelPackage, artefact: Path, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of `tokens` together, and one by one through two stages."""
    model = CompiledModel(
        package, artefact, threads=1, kv_pages=8, max_sessions=2, max_rows=len(tokens), context=len(tokens)
    )
    model.page_table[:] = np.arange(model.page_table.size).reshape(model.page_table.shape)
    blocks, positions = package.shape.blocks, np.arange(len(tokens))
    hidden = model.run_blocks(LayerRange(0, blocks), model.embed(tokens), positions, np.zeros_like(positions))
    together = model.head(hidden).copy()
    alone = []
    for position in positions:
        row = slice(position, position + 1)
        hidden = model.embed(tokens[row])
        for layers in (LayerRange(0, blocks // 3), LayerRange(blocks // 3, blocks)):
            hidden = model.run_blocks(layers, hidden, positions[row], np.ones(1, np.int64))
        alone.append(model.head(hidden).copy())
    return together, np.concatenate(alone)


def main() -> None:
    package, results, text, *artefacts = sys.argv[1:]
    opened = ModelPackage.open(Path(package))
    tokens = np.array(text.split(","), np.int32)
    found = {}
    for artefact in map(Path, artefacts):
        together, alone = run(opened, artefact, tokens)
        found |= {f"{artefact.name}.together": together, f"{artefact.name}.alone": alone}
    np.savez(results, **found)


if __name__ == "__main__":
    main()
