"""All functions of a GPU artefact: what `kernels.text` and `kernels.blocks` are to a CPU, and what a device needs besides."""

from __future__ import annotations

from typing import Any

from compiler.kernels.blocks import block_weights
from compiler.kernels.expansion import quick_expansion
from compiler.kernels.gpu.blocks import gpu_blocks_function, gpu_blocks_scratch
from compiler.kernels.gpu.linear import gpu_weight
from compiler.kernels.gpu.pages import pages_function
from compiler.kernels.gpu.rows import embed_function, receive_function
from compiler.kernels.gpu.sample import sample_function
from compiler.kernels.gpu.text import gpu_head_function, gpu_head_scratch
from compiler.kernels.text import EMBED_WEIGHTS, HEAD_WEIGHTS
from compiler.models.spec import ArchitectureDims
from compiler.quantisation import Quantisation


def gpu_functions(dims: ArchitectureDims, quantisation: Quantisation) -> dict[str, Any]:
    """The TIR functions by name, in the form that `compiler.kernels.gpu.threads` describes."""
    weights = {name: gpu_weight(getattr(quantisation, name)) for name in ("qkv", "output", "gate_up", "down", "text")}
    with quick_expansion():
        return {
            "embed": embed_function(dims, weights["text"]),
            "receive": receive_function(dims),
            "blocks": gpu_blocks_function(dims, weights),
            "head": gpu_head_function(dims, weights["text"]),
            "sample": sample_function(dims),
            "gather": pages_function(dims, "gather"),
            "scatter": pages_function(dims, "scatter"),
        }


def gpu_function_facts(dims: ArchitectureDims) -> dict[str, dict[str, Any]]:
    """Weights, scratch and results of every function, for the manifest."""
    return {
        "embed": {"weights": list(EMBED_WEIGHTS), "scratch": [], "outputs": ["h"]},
        "receive": {"weights": [], "scratch": [], "outputs": ["h"]},
        "blocks": {
            "weights": block_weights(dims),
            "scratch": gpu_blocks_scratch(dims),
            "outputs": ["h", "keys", "values"],
        },
        "head": {"weights": list(HEAD_WEIGHTS), "scratch": gpu_head_scratch(dims), "outputs": ["logits"]},
        "sample": {"weights": [], "scratch": [], "outputs": ["tokens"]},
        "gather": {"weights": [], "scratch": [], "outputs": ["moved_keys", "moved_values"]},
        "scatter": {"weights": [], "scratch": [], "outputs": ["keys", "values"]},
    }
