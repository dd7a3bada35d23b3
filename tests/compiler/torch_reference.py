"""The model in plain torch, float32: what the kernels are measured against."""

from __future__ import annotations

from typing import Any

import torch

from compiler.models.model_file import ModelFile


class TorchReference:
    """Weights of a model file as float32. Keys and values are rounded to `cached`: float16 is what the KV cache holds."""

    def __init__(self, model: ModelFile, cached: torch.dtype = torch.float16) -> None:
        self.spec = model.spec
        self._cached = cached
        self._model = model
        self._cache: dict[str, torch.Tensor] = {}

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._cache:
            self._cache[name] = torch.from_numpy(self._model.values(name).copy())
        return self._cache[name]

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.spec.rms_eps) * self._weight(name)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Half-split rotary embedding of [tokens, heads, head_dim], positions from 0."""
        rotary, half = self.spec.rotary, self.spec.head_dim // 2
        angles = torch.arange(len(x), dtype=torch.float64)[:, None] * torch.tensor(rotary.rates, dtype=torch.float64)
        cos, sin = (rotary.magnitude * part.float()[:, None] for part in (angles.cos(), angles.sin()))
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def _project(self, x: torch.Tensor, block: str, part: str) -> torch.Tensor:
        """Query, key or value heads [tokens, heads, head_dim] of `x`, before rotation."""
        rows = x @ self._weight(f"{block}.{part}").T
        if self.spec.qkv_bias:
            rows = rows + self._weight(f"{block}.{part}_bias")
        heads = rows.view(len(x), -1, self.spec.head_dim)
        return self._norm(heads, f"{block}.{part}_norm") if self.spec.qk_norm and part != "value" else heads

    def _block(self, h: torch.Tensor, index: int) -> torch.Tensor:
        s, block, tokens = self.spec, f"blocks.{index}", len(h)
        x = self._norm(h, f"{block}.attention_norm")
        q, k, v = (self._project(x, block, part) for part in ("query", "key", "value"))
        q, k, v = self._rotate(q), self._rotate(k).to(self._cached).float(), v.to(self._cached).float()
        repeat = s.heads // s.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = torch.einsum("thd,shd->hts", q, k) / s.head_dim**0.5
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        mixed = torch.einsum("hts,shd->thd", weights, v).reshape(tokens, -1)
        h = h + mixed @ self._weight(f"{block}.output").T
        x = self._norm(h, f"{block}.ffn_norm")
        gate = torch.nn.functional.silu(x @ self._weight(f"{block}.gate").T)
        return h + (gate * (x @ self._weight(f"{block}.up").T)) @ self._weight(f"{block}.down").T

    def logits(self, tokens: list[int]) -> Any:
        """float32 NumPy array [tokens, vocab] for a sequence that starts at position 0."""
        with torch.no_grad():
            h = self._weight("embedding")[torch.tensor(tokens)]
            for block in range(self.spec.blocks):
                h = self._block(h, block)
            head = "embedding" if self.spec.tied_embedding else "head"
            return (self._norm(h, "final_norm") @ self._weight(head).T).numpy()
