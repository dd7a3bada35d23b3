"""Tiny models of every family, made by `transformers`: the independent reference, as a folder and as a GGUF file.

No width is one that the kernels take as it is: all have to be padded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter, RopeScalingType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CONTEXT = 64
VOCAB = 301
_SHARED = {
    "vocab_size": VOCAB,
    "num_hidden_layers": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.15,
    "attn_implementation": "eager",
}
_LLAMA = {"hidden_size": 100, "intermediate_size": 90, "num_attention_heads": 4, "num_key_value_heads": 2}
_SCALED = {"rope_theta": 10000.0, "original_max_position_embeddings": CONTEXT // 4}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **_SCALED}
_YARN = {"rope_type": "yarn", "factor": 4.0, **_SCALED}
_LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}

# Name: class of the model, class of its configuration, and the configuration. `head_dim` 26 has halves of 13.
FAMILIES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {**_LLAMA, "head_dim": 26}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, {**_LLAMA, "head_dim": 26, "tie_word_embeddings": True}),
    "llama3": (LlamaForCausalLM, LlamaConfig, {**_LLAMA, "head_dim": 26, "rope_parameters": _LLAMA3}),
    "llama-linear": (LlamaForCausalLM, LlamaConfig, {**_LLAMA, "head_dim": 26, "rope_parameters": _LINEAR}),
    "llama-yarn": (LlamaForCausalLM, LlamaConfig, {**_LLAMA, "head_dim": 26, "rope_parameters": _YARN}),
    "mistral": (
        MistralForCausalLM,
        MistralConfig,
        {
            "hidden_size": 96,
            "intermediate_size": 160,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "sliding_window": None,
        },
    ),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {**_LLAMA, "hidden_size": 72, "rope_parameters": _YARN, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {**_LLAMA, "head_dim": 100}),
}
_GGUF_ARCHITECTURE = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def make_model(family: str) -> Any:
    """A `transformers` model with random weights; norms and biases are not the ones and zeros they start as."""
    model_class, config_class, settings = FAMILIES[family]
    torch.manual_seed(3)
    model = model_class(config_class(**{**_SHARED, **settings})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            assert torch.isfinite(parameter).all(), name
    return model


def reference_logits(model: Any, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocabulary]."""
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([tokens])).logits[0].numpy()
    return logits


def save_folder(model: Any, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """The model as `transformers` saves it, with a tokenizer of single letters."""
    model.to(dtype).save_pretrained(folder, **options)
    model.to(torch.float32)
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


def _letters() -> list[str]:
    """The plain tokens; the last is its first two merged."""
    single = [chr(256 + i) for i in range(VOCAB - 2)]
    return [*single, single[0] + single[1]]


def _tokenizer() -> Tokenizer:
    letters = _letters()
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, [(letters[0], letters[1])]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def _gguf_name(name: str) -> str:
    module, _, ending = name.rpartition(".")
    if module.startswith("model.layers."):
        block, _, part = module.removeprefix("model.layers.").partition(".")
        return f"blk.{block}.{_GGUF_NAMES[part]}.{ending}"
    return f"{_GGUF_NAMES[module]}.{ending}"


def _interleave(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rotary pairs side by side, as files of the architecture llama hold them."""
    heads = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(model: Any, path: Path) -> Path:
    """The model as a GGUF file of floats."""
    config = model.config
    architecture = _GGUF_ARCHITECTURE[type(model).__name__]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_rope(writer, config, head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*_letters(), "<end>"])
    writer.add_token_types([1] * (VOCAB - 1) + [3])
    writer.add_token_merges([" ".join(_letters()[:2])])
    writer.add_eos_token_id(VOCAB - 1)
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            value = _interleave(value, head_dim)
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_rope(writer: GGUFWriter, config: Any, head_dim: int) -> None:
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif rope["rope_type"] == "llama3":
        factors = _plain_rates(rope["rope_theta"], head_dim) / _llama3_rates(rope, head_dim)
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))


def _plain_rates(base: float, head_dim: int) -> np.ndarray:
    return np.asarray(base ** (-np.arange(0, head_dim, 2) / head_dim))


def _llama3_rates(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    """Radians per position, by wavelengths as the model's authors put it."""
    rates = _plain_rates(rope["rope_theta"], head_dim)
    wavelengths = 2 * np.pi / rates
    original, low, high = (
        rope[name] for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    smooth = (original / wavelengths - low) / (high - low)
    between = (1 - smooth) * rates / rope["factor"] + smooth * rates
    long_waves = np.where(wavelengths > original / low, rates / rope["factor"], between)
    return np.asarray(np.where(wavelengths < original / high, rates, long_waves))
