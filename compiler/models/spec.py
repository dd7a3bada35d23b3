"""What the compiler knows of a model's decoder: its own dimensions, and those that the kernels see.

`ArchitectureDims` alone decides the compiled library; `ModelSpec` adds what belongs to one model file. Reading a file
format is the work of the other modules in this folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from compiler.models.rotary import Rotary


@dataclass(frozen=True, slots=True)
class ArchitectureDims:
    """Dimensions of a llama-like decoder as the kernels see them; two models with equal dimensions share one artefact.

    Widths are padded to multiples of 32, heads so that each rotary half is a multiple of 16; what is added is zeros.
    `norm_width` and `score_width` are the model's own width and head width, which means and scores divide by.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    norm_width: int
    score_width: int
    rms_eps: float
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def attention(self) -> int:
        """Columns of the concatenated query heads."""
        return self.heads * self.head_dim

    @property
    def qkv(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def as_dict(self) -> dict[str, int | float]:
        """Plain values for a manifest and for hashing."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model file states of its decoder. `context` is in tokens. What it states of text is `ModelTokenizer`."""

    name: str
    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rms_eps: float
    rotary: Rotary
    tied_embedding: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def dims(self) -> ArchitectureDims:
        """The part that decides the artefact."""
        return ArchitectureDims(
            hidden=_up(self.hidden, 32),
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=2 * _up(self.head_dim // 2, 16),
            ffn=_up(self.ffn, 32),
            vocab=_up(self.vocab, 32),
            norm_width=self.hidden,
            score_width=self.head_dim,
            rms_eps=self.rms_eps,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
        )


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
