"""A vision transformer with a projector, for torch. Its weights are RANDOM: it has been trained on nothing.

It makes rows of a language model's width from a picture, one for each square patch. What a model says about such rows
means nothing; the example shows where pictures go, not what is in them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Attention over all patches, then a perceptron; both around a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[batch, patches, width] to the same."""
        batch, count, width = rows.shape
        parts = self.qkv(self.attention_norm(rows)).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        rows = rows + self.output(mixed.transpose(1, 2).reshape(batch, count, width))
        return rows + self.down(functional.gelu(self.up(self.perceptron_norm(rows))))


class VisionEncoder(nn.Module):
    """[1, 3, side, side] to [1, patches, output]; `blocks` are where it can be cut."""

    def __init__(
        self, *, side: int = 96, patch: int = 16, width: int = 192, heads: int = 3, blocks: int = 6, output: int = 576
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.projector = nn.Sequential(nn.Linear(width, output), nn.GELU(), nn.Linear(output, output))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Rows for a normalised picture."""
        rows = self.patches(picture).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            rows = block(rows)
        return self.projector(self.norm(rows))
