"""Reads GGUF files of the architectures `llama` (Mistral and SmolLM are stored as it), `qwen2` and `qwen3`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import ModelFileError
from compiler.models.gguf_container import GgufContainer
from compiler.models.model_file import ModelFile, Naming, head_width
from compiler.models.rotary import (
    Rotary,
    YarnRange,
    divide_rates,
    linear_rotary,
    plain_rotary,
    yarn_magnitude,
    yarn_rotary,
)
from compiler.models.spec import ModelSpec
from compiler.models.stored import StoredTensor
from compiler.models.tensors import part_of
from compiler.models.tokenizer import ModelTokenizer
from compiler.models.tokenizer_facts import TokenizerFacts, read_tokenizer_facts
from compiler.models.tokenizer_gguf import tokenizer_from_gguf


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a GGUF architecture's tensors are like; `interleaved`: rotary pairs of query and key lie side by side."""

    interleaved: bool
    qkv_bias: bool
    qk_norm: bool


ARCHITECTURES = {
    "llama": Architecture(interleaved=True, qkv_bias=False, qk_norm=False),
    "qwen2": Architecture(interleaved=False, qkv_bias=True, qk_norm=False),
    "qwen3": Architecture(interleaved=False, qkv_bias=False, qk_norm=True),
}
_FREQUENCY_FACTORS = "rope_freqs.weight"
_NAMING = Naming(
    text={"embedding": "token_embd.weight", "final_norm": "output_norm.weight", "head": "output.weight"},
    block="blk.{}.",
    parts={
        "attention_norm": "attn_norm.weight",
        "ffn_norm": "ffn_norm.weight",
        "query": "attn_q.weight",
        "key": "attn_k.weight",
        "value": "attn_v.weight",
        "output": "attn_output.weight",
        "gate": "ffn_gate.weight",
        "up": "ffn_up.weight",
        "down": "ffn_down.weight",
        "query_bias": "attn_q.bias",
        "key_bias": "attn_k.bias",
        "value_bias": "attn_v.bias",
        "query_norm": "attn_q_norm.weight",
        "key_norm": "attn_k_norm.weight",
    },
    ignored=(_FREQUENCY_FACTORS,),
)
_ROTATED = ("query", "key", "query_bias", "key_bias")


class GgufModel(ModelFile):
    """An opened GGUF file.

    Raises:
        ModelFileError: unreadable, of another architecture, incomplete, or with parts that cannot be compiled.
    """

    def __init__(self, path: Path, name: str) -> None:
        try:
            container = GgufContainer(path)
        except FileNotFoundError:
            raise ModelFileError(f"no model file at '{path}'; give the path of a .gguf file") from None
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"'{path}' is not a readable GGUF file ({reason}); download it again") from error
        self._stated = container.facts
        facts = _Facts(path, container.facts)
        architecture = ARCHITECTURES.get(facts.architecture)
        if architecture is None:
            raise ModelFileError(
                f"'{path}' has the architecture {facts.architecture!r}; supported are {', '.join(ARCHITECTURES)}"
            )
        super().__init__(path, _read_spec(facts, name, architecture, container.tensors), container.tensors, _NAMING)
        if architecture.interleaved:
            self._tensors = {
                name: _half_split(tensor, self.spec.head_dim) if part_of(name) in _ROTATED else tensor
                for name, tensor in self._tensors.items()
            }

    def tokenizer(self) -> TokenizerFacts:
        """What the file states of its tokenizer. Raises ModelFileError where it holds none."""
        return read_tokenizer_facts(self._stated, str(self.path))

    def read_tokenizer(self) -> ModelTokenizer:
        return tokenizer_from_gguf(self.tokenizer())


class _Facts:
    """Typed access to the key-value facts. Keys that start with a dot are the architecture's."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self._facts = facts
        self.architecture = self.text("general.architecture", "unknown")

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of `key`; None for `default` means that the file has to state it. Raises ModelFileError."""
        key = self.architecture + key if key.startswith(".") else key
        value = self._facts.get(key, default)
        if value is None:
            raise ModelFileError(f"'{self.path}' does not state {key}; use a complete GGUF file")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelFileError(f"'{self.path}': its {key} is of a kind that is not supported; use another model")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        return int(self.get(key, int, default))

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        return float(self.get(key, (int, float), default))

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return str(self.get(key, str, default))

    def refuse(self, what: str) -> ModelFileError:
        """The error for a model whose file says `what`."""
        return ModelFileError(f"'{self.path}' {what}, which is not supported; use another model")


def _read_spec(facts: _Facts, name: str, architecture: Architecture, tensors: dict[str, StoredTensor]) -> ModelSpec:
    hidden, heads = facts.whole(".embedding_length"), facts.whole(".attention.head_count")
    head_dim = head_width(facts.path, hidden, heads, facts.whole(".attention.key_length", 0))
    if facts.whole(".expert_count", 0):
        raise facts.refuse("is a mixture of experts")
    if facts.whole(".attention.value_length", head_dim) != head_dim:
        raise facts.refuse("has heads whose keys and values differ in width")
    if facts.whole(".rope.dimension_count", head_dim) != head_dim:
        raise facts.refuse("rotates a part of each head only")
    embedding = tensors.get(_NAMING.text["embedding"])
    context = facts.whole(".context_length")
    try:
        rotary, context = _read_rotary(facts, head_dim, context, tensors.get(_FREQUENCY_FACTORS))
    except (ValueError, ArithmeticError) as error:
        raise ModelFileError(f"'{facts.path}': its rotary embedding cannot be ({error}); download it again") from error
    window = facts.whole(".attention.sliding_window", 0)
    return ModelSpec(
        name=name,
        blocks=facts.whole(".block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=facts.whole(".attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn=facts.whole(".feed_forward_length"),
        vocab=0 if embedding is None else embedding.shape[0],
        context=min(context, window) if window else context,  # up to its window a model attends to everything
        rms_eps=facts.number(".attention.layer_norm_rms_epsilon"),
        rotary=rotary,
        tied_embedding=_NAMING.text["head"] not in tensors,
        qkv_bias=architecture.qkv_bias or any(name.endswith(".attn_q.bias") for name in tensors),
        qk_norm=architecture.qk_norm,
    )


def _read_rotary(facts: _Facts, head_dim: int, context: int, factors: StoredTensor | None) -> tuple[Rotary, int]:
    """The embedding, and the context that it reaches. Raises ValueError or ArithmeticError for impossible numbers."""
    base = facts.number(".rope.freq_base", 10000.0)
    factor = facts.number(".rope.scaling.factor", facts.number(".rope.scale_linear", 1.0)) or 1.0
    kind = facts.text(".rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise facts.refuse(f"scales its rotary embedding by {kind!r}")
    original = facts.whole(".rope.scaling.original_context_length", context)
    if kind == "yarn":
        if facts.number(".rope.scaling.yarn_log_multiplier", 0.0) or factors is not None:
            raise facts.refuse("scales its rotary embedding by a variant of YaRN")
        magnitude = yarn_magnitude(factor) * facts.number(".rope.scaling.attn_factor", 1.0)
        ramp = YarnRange(
            original,
            facts.number(".rope.scaling.yarn_beta_fast", 32.0),
            facts.number(".rope.scaling.yarn_beta_slow", 1.0),
        )
        return yarn_rotary(base, head_dim, factor, magnitude, ramp), max(context, int(original * factor))
    rotary = plain_rotary(base, head_dim)
    if factors is not None:
        rotary = divide_rates(rotary, _frequency_factors(factors))
    return (linear_rotary(rotary, factor) if kind == "linear" else rotary), context


def _frequency_factors(factors: StoredTensor) -> list[float]:
    if factors.kind != "F32" or len(factors.shape) != 1:
        raise ValueError(f"{factors.name} is no vector of F32")
    return [float(factor) for factor in factors.values()]


def _half_split(tensor: StoredTensor, head_dim: int) -> StoredTensor:
    """The tensor with its rotary pairs half a head apart."""
    order = np.arange(tensor.shape[0]).reshape(-1, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
    return replace(tensor, row_order=order)
