"""Reads Hugging Face folders: config.json, safetensors and the tokenizer's files, of Llama, Mistral, Qwen2 and Qwen3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import ModelFileError
from compiler.models.folder import CONFIG, read_json
from compiler.models.model_file import ModelFile, Naming, head_width
from compiler.models.rotary import (
    Rotary,
    YarnRange,
    linear_rotary,
    llama3_rotary,
    plain_rotary,
    yarn_magnitude,
    yarn_rotary,
)
from compiler.models.safetensors_container import read_safetensors
from compiler.models.spec import ModelSpec
from compiler.models.tokenizer import ModelTokenizer
from compiler.models.tokenizer_folder import tokenizer_from_folder


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model class has beyond Llama, and what it takes where config.json says nothing."""

    qkv_bias: bool = False
    qk_norm: bool = False
    kv_heads: int | None = None
    head_dim: int | None = None
    sliding_window: int | None = None


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(),
    "MistralForCausalLM": Architecture(kv_heads=8, sliding_window=4096),
    "Qwen2ForCausalLM": Architecture(qkv_bias=True, kv_heads=32),
    "Qwen3ForCausalLM": Architecture(qk_norm=True, kv_heads=32, head_dim=128),
}
_LARGEST_NUMBER = 1 << 63
_HEAD = "lm_head.weight"
_NAMING = Naming(
    text={"embedding": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "head": _HEAD},
    block="model.layers.{}.",
    parts={
        "attention_norm": "input_layernorm.weight",
        "ffn_norm": "post_attention_layernorm.weight",
        "query": "self_attn.q_proj.weight",
        "key": "self_attn.k_proj.weight",
        "value": "self_attn.v_proj.weight",
        "output": "self_attn.o_proj.weight",
        "gate": "mlp.gate_proj.weight",
        "up": "mlp.up_proj.weight",
        "down": "mlp.down_proj.weight",
        "query_bias": "self_attn.q_proj.bias",
        "key_bias": "self_attn.k_proj.bias",
        "value_bias": "self_attn.v_proj.bias",
        "query_norm": "self_attn.q_norm.weight",
        "key_norm": "self_attn.k_norm.weight",
    },
    # a tied model may store its head all the same; older files store the rates of the rotary embedding
    ignored=(_HEAD, ".rotary_emb.inv_freq"),
)


class HuggingFaceModel(ModelFile):
    """An opened folder.

    Raises:
        ModelFileError: unreadable, of another architecture, incomplete, or with parts that cannot be compiled.
    """

    def __init__(self, path: Path, name: str) -> None:
        config = _Config(path)
        architecture = ARCHITECTURES.get(config.architecture)
        if architecture is None:
            raise ModelFileError(
                f"'{path}' has the architecture {config.architecture!r}; supported are {', '.join(ARCHITECTURES)}"
            )
        stored = read_safetensors(path)
        bias = architecture.qkv_bias or any(name.endswith(_NAMING.parts["query_bias"]) for name in stored)
        super().__init__(path, _read_spec(config, name, architecture, bias), stored, _NAMING)

    def read_tokenizer(self) -> ModelTokenizer:
        return tokenizer_from_folder(self.path)


class _Config:
    """Typed access to an object of config.json, the whole of it by default. Null counts as not stated."""

    def __init__(self, folder: Path, stated: dict[str, Any] | None = None) -> None:
        self.path = folder
        self.stated = read_json(folder / CONFIG) if stated is None else stated

    @property
    def architecture(self) -> str:
        """The model class."""
        named = self.stated.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else "unknown"

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of `key`; None for `default` means that it has to be stated. Raises ModelFileError."""
        value = self.stated.get(key)
        value = default if value is None else value
        if value is None:
            raise ModelFileError(f"'{self.path / CONFIG}' does not state {key}; use a complete folder")
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not fits or (isinstance(value, int) and abs(value) >= _LARGEST_NUMBER):
            raise ModelFileError(f"'{self.path / CONFIG}': its {key} is {value!r:.40}; use a complete folder")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        return int(self.get(key, int, default))

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        return float(self.get(key, (int, float), default))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return bool(self.get(key, bool, default))

    def refuse(self, what: str) -> ModelFileError:
        """The error for a model whose file says `what`."""
        return ModelFileError(f"'{self.path}' {what}, which is not supported; use another model")


def _read_spec(config: _Config, name: str, architecture: Architecture, qkv_bias: bool) -> ModelSpec:
    if config.stated.get("quantization_config") is not None:
        raise config.refuse("is quantised already; only GGUF files may be")
    activation = config.get("hidden_act", str, "silu")
    if activation != "silu":
        raise config.refuse(f"uses the activation {activation!r}")
    hidden, heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    head_dim = head_width(config.path, hidden, heads, config.whole("head_dim", architecture.head_dim or 0))
    try:
        rotary, context = _read_rotary(config, head_dim)
    except (ValueError, ArithmeticError) as error:
        raise ModelFileError(f"'{config.path}': its rotary embedding cannot be ({error}); download it again") from error
    window = _sliding_window(config, architecture)
    return ModelSpec(
        name=name,
        blocks=config.whole("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.whole("num_key_value_heads", architecture.kv_heads or heads),
        head_dim=head_dim,
        ffn=config.whole("intermediate_size"),
        vocab=config.whole("vocab_size"),
        context=min(context, window) if window else context,  # up to its window a model attends to everything
        rms_eps=config.number("rms_norm_eps", 1e-6),
        rotary=rotary,
        tied_embedding=config.flag("tie_word_embeddings", default=False),
        qkv_bias=qkv_bias,
        qk_norm=architecture.qk_norm,
    )


def _sliding_window(config: _Config, architecture: Architecture) -> int:
    """Tokens that a block sees of the past, 0 for all; Mistral alone may mean a window that it does not state."""
    if "sliding_window" in config.stated and config.stated["sliding_window"] is None:
        return 0
    if not config.flag("use_sliding_window", default=architecture.sliding_window is not None):
        return 0
    return config.whole("sliding_window", architecture.sliding_window or 0)


def _read_rotary(config: _Config, head_dim: int) -> tuple[Rotary, int]:
    """The embedding, and the context that it reaches. Raises ValueError or ArithmeticError for impossible numbers."""
    context = config.whole("max_position_embeddings")
    stated = _Config(config.path, config.get("rope_parameters", dict, config.get("rope_scaling", dict, {})))
    base = stated.number("rope_theta", config.number("rope_theta", 10000.0))
    kind = stated.get("rope_type", str, stated.get("type", str, "default"))
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise config.refuse(f"scales its rotary embedding by {kind!r}")
    for place in (config, stated):
        if place.number("partial_rotary_factor", 1.0) != 1:
            raise config.refuse("rotates a part of each head only")
    plain = plain_rotary(base, head_dim)
    if kind == "default":
        return plain, context
    factor, original = stated.number("factor"), stated.whole("original_max_position_embeddings", context)
    if kind == "linear":
        return linear_rotary(plain, factor), context
    if kind == "llama3":
        low, high = stated.number("low_freq_factor"), stated.number("high_freq_factor")
        return llama3_rotary(plain, factor, low, high, original), context
    ramp = YarnRange(
        original,
        stated.number("beta_fast", 32.0) or 32.0,
        stated.number("beta_slow", 1.0) or 1.0,
        stated.flag("truncate", default=True),
    )
    rotary = yarn_rotary(base, head_dim, factor, _yarn_magnitude(stated, factor), ramp)
    return rotary, max(context, int(original * factor))


def _yarn_magnitude(stated: _Config, factor: float) -> float:
    """As stated; else by the paper's formula, with weights where the model has them."""
    weight, all_weight = stated.number("mscale", 0.0), stated.number("mscale_all_dim", 0.0)
    usual = yarn_magnitude(factor)
    if weight and all_weight:
        usual = yarn_magnitude(factor, weight) / yarn_magnitude(factor, all_weight)
    return stated.number("attention_factor", usual)
