"""What the compiler knows of a model: its dimensions, and the facts a node needs to turn text into tokens.

`ArchitectureDims` alone decides the compiled library; `ModelSpec` adds what belongs to one model file. Reading a file
format is the work of the other modules in this folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ArchitectureDims:
    """Dimensions of a llama-like decoder; two models with equal dimensions share one artefact."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rms_eps: float

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
    """One model file's facts. `context` is in tokens; ids that the file does not name are None."""

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
    rope_base: float
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    chat_template: str
    tied_embedding: bool

    @property
    def dims(self) -> ArchitectureDims:
        """The part that decides the artefact."""
        return ArchitectureDims(
            self.hidden, self.heads, self.kv_heads, self.head_dim, self.ffn, self.vocab, self.rms_eps
        )
