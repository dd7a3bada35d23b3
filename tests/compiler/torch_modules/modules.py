"""Small torch modules of different kinds, all with random weights."""

from __future__ import annotations

import torch
from torch import nn

from mec_apps.examples.vision.encoder import VisionEncoder


def vision() -> tuple[nn.Module, torch.Tensor]:
    """The example's vision transformer, smaller, with a number of patches that no tile divides."""
    encoder = VisionEncoder(side=44, patch=4, width=48, heads=3, blocks=3, output=64)
    return encoder, torch.randn(1, 3, 44, 44)


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix_tokens = nn.Sequential(nn.Linear(tokens, 40), nn.GELU(), nn.Linear(40, tokens))
        self.mix_channels = nn.Sequential(nn.Linear(width, 80), nn.SiLU(), nn.Linear(80, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix_tokens(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mix_channels(self.channel_norm(x))


def mixer() -> tuple[nn.Module, torch.Tensor]:
    """Mixes tokens, then channels; two rows of a batch."""
    return nn.Sequential(*(_MixerBlock(25, 36) for _ in range(4))), torch.randn(2, 25, 36)


class _Audio(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(20, 32, 3, padding=1), nn.GELU(), nn.Conv1d(32, 48, 3, stride=2, padding=1), nn.BatchNorm1d(48)
        )
        layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True, dropout=0.1)
        self.layers = nn.ModuleList([layer, nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True)])
        self.register_buffer("positions", torch.randn(32, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.front(x).transpose(1, 2) + self.positions
        for layer in self.layers:
            x = layer(x)
        return x.mean(1)


def audio() -> tuple[nn.Module, torch.Tensor]:
    """Convolutions over time, then transformer layers of torch's own; ends in one row."""
    return _Audio(), torch.randn(1, 20, 64)


class _Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 24, 1), nn.Hardswish(), nn.Conv2d(24, 16, 1)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = x + stage(x)
        return self.head(nn.functional.max_pool2d(x, 4).flatten(2).transpose(1, 2))


def picture() -> tuple[nn.Module, torch.Tensor]:
    """A convolutional network with depthwise convolutions and pooling."""
    return _Picture(), torch.randn(1, 3, 32, 32)


MODULES = {"vision": vision, "mixer": mixer, "audio": audio, "picture": picture}
