"""The model in plain torch, float32: what the kernels are measured against."""

from __future__ import annotations

from typing import Any

import torch

from compiler.models.gguf_file import GgufModel


class TorchReference:
    """Weights of a GGUF file, dequantised. Keys and values are rounded to `cached`: float16 is what the KV cache holds."""

    def __init__(self, model: GgufModel, cached: torch.dtype = torch.float16) -> None:
        self.spec = model.spec
        self._cached = cached
        self._model = model
        self._cache: dict[str, torch.Tensor] = {}

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._cache:
            self._cache[name] = torch.from_numpy(self._model.values(f"{name}.weight").copy())
        return self._cache[name]

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.spec.rms_eps) * self._weight(name)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Half-split rotary embedding of [tokens, heads, head_dim], positions from 0."""
        half = self.spec.head_dim // 2
        rates = self.spec.rope_base ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(len(x), dtype=torch.float64)[:, None] * rates
        cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def _block(self, h: torch.Tensor, block: int) -> torch.Tensor:
        s, name, tokens = self.spec, f"blk.{block}", len(h)
        x = self._norm(h, f"{name}.attn_norm")
        q, k, v = ((x @ self._weight(f"{name}.attn_{part}").T).view(tokens, -1, s.head_dim) for part in ("q", "k", "v"))
        q, k, v = self._rotate(q), self._rotate(k).to(self._cached).float(), v.to(self._cached).float()
        repeat = s.heads // s.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = torch.einsum("thd,shd->hts", q, k) / s.head_dim**0.5
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        mixed = torch.einsum("hts,shd->thd", weights, v).reshape(tokens, -1)
        h = h + mixed @ self._weight(f"{name}.attn_output").T
        x = self._norm(h, f"{name}.ffn_norm")
        gate = torch.nn.functional.silu(x @ self._weight(f"{name}.ffn_gate").T)
        return h + (gate * (x @ self._weight(f"{name}.ffn_up").T)) @ self._weight(f"{name}.ffn_down").T

    def logits(self, tokens: list[int]) -> Any:
        """float32 NumPy array [tokens, vocab] for a sequence that starts at position 0."""
        with torch.no_grad():
            h = self._weight("token_embd")[torch.tensor(tokens)]
            for block in range(self.spec.blocks):
                h = self._block(h, block)
            head = "token_embd" if self.spec.tied_embedding else "output"
            return (self._norm(h, "output_norm") @ self._weight(head).T).numpy()
