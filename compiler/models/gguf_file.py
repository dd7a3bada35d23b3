"""Reads llama-like GGUF files: facts into a `ModelSpec`, tensors into groups of quantised weights or floats.

Supported tensor kinds: Q4_1, Q4_0, Q8_0, F16, F32. Query and key rows come out in half-split rotary order (GGUF keeps
the pairs side by side).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

from compiler.errors import ModelFileError
from compiler.models.groups import Groups, quantise_groups, split_q4_0, split_q4_1, split_q8_0
from compiler.models.spec import ModelSpec
from compiler.models.tokenizer_facts import TokenizerFacts, read_tokenizer_facts

_SUPPORTED = ("Q4_1", "Q4_0", "Q8_0", "F16", "F32")
_BLOCK_TENSORS = (
    "attn_norm",
    "ffn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


class GgufModel:
    """An opened model file.

    Raises:
        ModelFileError: unreadable, of another architecture, incomplete, or of dimensions the kernels cannot take.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        try:
            self._reader = GGUFReader(path)
        except FileNotFoundError:
            raise ModelFileError(f"no model file at '{path}'; give the path of a .gguf file") from None
        except (ValueError, IndexError, KeyError, OverflowError, OSError, MemoryError) as error:
            raise ModelFileError(
                f"'{path}' is not a readable GGUF file ({_one_line(error)}); download it again"
            ) from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.spec = self._read_spec(name)
        self._check_tensors()

    def _field(self, key: str, default: Any = None) -> Any:
        field = self._reader.fields.get(key)
        if field is not None:
            return field.contents()
        if default is None:
            raise ModelFileError(f"'{self.path}' does not state {key}; use a complete GGUF file of a llama model")
        return default

    def _optional_id(self, key: str) -> int | None:
        value = self._field(f"tokenizer.ggml.{key}", -1)
        return None if value < 0 else int(value)

    def _read_spec(self, name: str) -> ModelSpec:
        architecture = self._field("general.architecture", "unknown")
        if architecture != "llama":
            raise ModelFileError(
                f"'{self.path}' has the architecture '{architecture}'; only 'llama' models can be compiled"
            )
        heads = int(self._field("llama.attention.head_count"))
        hidden = int(self._field("llama.embedding_length"))
        head_dim = int(self._field("llama.attention.key_length", hidden // heads))
        if int(self._field("llama.rope.dimension_count", head_dim)) != head_dim or "rope_freqs.weight" in self._tensors:
            raise ModelFileError(f"'{self.path}' uses partial or scaled rotary embedding, which is not supported")
        vocab = self._tensors["token_embd.weight"].shape[1] if "token_embd.weight" in self._tensors else 0
        spec = ModelSpec(
            name=name,
            blocks=int(self._field("llama.block_count")),
            hidden=hidden,
            heads=heads,
            kv_heads=int(self._field("llama.attention.head_count_kv", heads)),
            head_dim=head_dim,
            ffn=int(self._field("llama.feed_forward_length")),
            vocab=int(vocab),
            context=int(self._field("llama.context_length")),
            rms_eps=float(self._field("llama.attention.layer_norm_rms_epsilon")),
            rope_base=float(self._field("llama.rope.freq_base", 10000.0)),
            bos_id=self._optional_id("bos_token_id"),
            eos_id=self._optional_id("eos_token_id"),
            eot_id=self._optional_id("eot_token_id"),
            chat_template=str(self._field("tokenizer.chat_template", " ")).strip(" "),
            tied_embedding="output.weight" not in self._tensors,
        )
        sizes = {"width": hidden, "head width": head_dim, "feed-forward width": spec.ffn, "vocabulary": spec.vocab}
        for what, size in sizes.items():
            if size % 32:
                raise ModelFileError(f"'{self.path}': its {what} of {size} is not a multiple of 32; use another model")
        if spec.heads % spec.kv_heads:
            raise ModelFileError(
                f"'{self.path}': {heads} heads cannot share {spec.kv_heads} KV heads; use another model"
            )
        return spec

    def _check_tensors(self) -> None:
        s = self.spec
        attention, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        shapes = {
            "attn_norm": (s.hidden,),
            "ffn_norm": (s.hidden,),
            "attn_q": (attention, s.hidden),
            "attn_k": (kv, s.hidden),
            "attn_v": (kv, s.hidden),
            "attn_output": (s.hidden, attention),
            "ffn_gate": (s.ffn, s.hidden),
            "ffn_up": (s.ffn, s.hidden),
            "ffn_down": (s.hidden, s.ffn),
        }
        wanted = {f"blk.{i}.{kind}.weight": shapes[kind] for i in range(s.blocks) for kind in _BLOCK_TENSORS}
        wanted |= {"token_embd.weight": (s.vocab, s.hidden), "output_norm.weight": (s.hidden,)}
        if not s.tied_embedding:
            wanted["output.weight"] = (s.vocab, s.hidden)
        for name, shape in wanted.items():
            tensor = self._tensors.get(name)
            if tensor is None:
                raise ModelFileError(f"'{self.path}' lacks the tensor {name}; download it again")
            if tuple(int(x) for x in tensor.shape[::-1]) != shape:
                raise ModelFileError(f"'{self.path}': {name} has another shape than {shape}; download it again")
            if tensor.tensor_type.name not in _SUPPORTED:
                raise ModelFileError(
                    f"'{self.path}': {name} is {tensor.tensor_type.name}; supported are {', '.join(_SUPPORTED)}"
                )

    def tokenizer(self) -> TokenizerFacts:
        """What the file states of its tokenizer; takes a second or two.

        Raises:
            ModelFileError: it holds none.
        """
        return read_tokenizer_facts(self._reader.fields, str(self.path))

    def values(self, name: str) -> np.ndarray:
        """A tensor as float32, [rows, columns] or [columns]."""
        tensor = self._tensors[name]
        if tensor.tensor_type.name in ("F32", "F16"):
            plain = np.asarray(tensor.data, dtype=np.float32).reshape([int(x) for x in tensor.shape[::-1]])
        else:
            plain = _SPLIT[tensor.tensor_type.name](tensor).values()
        order = self._row_order(name)
        return plain if order is None else plain[order]

    def groups(self, name: str, bits: int) -> Groups:
        """A matrix as quantised groups; a re-pack without loss where the file has no more than `bits` bits."""
        tensor = self._tensors[name]
        kind = tensor.tensor_type.name
        split = _SPLIT.get(kind)
        if split is None or (kind == "Q8_0" and bits < 8):
            return quantise_groups(self.values(name), bits)
        groups = split(tensor)
        order = self._row_order(name)
        return groups if order is None else groups.rows(order)

    def _row_order(self, name: str) -> np.ndarray | None:
        heads = {"attn_q": self.spec.heads, "attn_k": self.spec.kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return None
        return np.arange(heads * self.spec.head_dim).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _splitter(split: Callable[[np.ndarray, int, int], Groups]) -> Callable[[Any], Groups]:
    return lambda tensor: split(np.asarray(tensor.data).view(np.uint8), int(tensor.shape[1]), int(tensor.shape[0]))


_SPLIT: dict[str, Callable[[Any], Groups]] = {
    "Q4_1": _splitter(split_q4_1),
    "Q4_0": _splitter(split_q4_0),
    "Q8_0": _splitter(split_q8_0),
}
