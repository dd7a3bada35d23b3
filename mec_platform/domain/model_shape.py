"""What decisions need to know of a model; sizes are those of the packed form that nodes load."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes in bytes. `hidden_bytes_per_row` crosses every hop once per token."""

    name: str
    blocks: int
    hidden_bytes_per_row: int
    block_bytes: int
    embed_bytes: int
    head_bytes: int
    kv_bytes_per_token_per_block: int
