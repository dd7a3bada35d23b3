"""What a hardware target is to the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CompileTarget:
    """A CPU: LLVM's names for it, and the /proc/cpuinfo flags that a machine needs to run the result.

    `dot` names how four unsigned bytes times four signed bytes are summed into 32 bits; every way gives the same integers,
    so the rows of one architecture give the same bits.

    `tile_rows` are the rows that are multiplied at once with 32 columns of weights, largest first, each dividing the one
    before it, down to 1; `tile_queries` is the most query heads at once with a page. Both are what the vector registers
    hold; they change no bit.
    """

    name: str
    arch: str
    mtriple: str
    mcpu: str
    dot: Literal["vpdpbusd", "pmaddubsw", "portable"]
    tile_rows: tuple[int, ...]
    tile_queries: int
    cpu_flags: frozenset[str]

    def llvm(self) -> dict[str, str]:
        """TVM's target description."""
        return {"kind": "llvm", "mtriple": self.mtriple, "mcpu": self.mcpu}
