"""What a hardware target is to the compiler: the part that all kinds of targets share, and the CPU kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

# How a kernel sums four unsigned bytes times four signed bytes into each 32-bit lane; the number is the width of its
# registers in bits. Every way gives the same integers.
ByteDot = Literal[
    "vpdpbusd-512",
    "vpdpbusd-256",
    "pmaddubsw-512",
    "pmaddubsw-256",
    "pmaddubsw-128",
    "usdot",
    "sdot",
    "smull",
    "portable",
]


TILING = ("tile_rows", "tile_queries", "prefetch_rows", "prefetch_groups", "unpack_tiles")


@dataclass(frozen=True, slots=True)
class TargetLimits:
    """Stated peaks of the hardware that a row is named after: what planners use where nothing was measured.

    Memory is the machine's; operations are one core's (one GPU's for a GPU), a product and a sum being two.
    """

    memory_bytes_per_s: float
    float32_ops_per_s: float
    int8_ops_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileTarget:
    """A row of the target table.

    `summary` says which machines it is for. `arch` is the machine's as `uname -m` prints it, the host's for a GPU.
    `features` are what a machine must have to run the artefact, in the kernel's own names (/proc/cpuinfo).
    """

    kind: ClassVar[Literal["cpu", "gpu"]]
    name: str
    summary: str
    arch: str
    features: frozenset[str]
    limits: TargetLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTarget(CompileTarget):
    """A CPU.

    `mcpu` and `mattr` are LLVM's: a core, and what is switched on or off against LLVM's idea of it. `machines` are the
    beginnings of the names of CPUs and boards that this row is tuned for; a row without names describes every machine
    that has its features. `cores` is the count of the named board.

    `tile_rows` are the rows that are multiplied at once with 32 columns of weights, largest first, each dividing the one
    before it, down to 1, and at least two; `tile_queries` is the most query heads at once with a page. Both are what the
    vector registers hold. Tiles of up to `prefetch_rows` rows wait for their weights and ask for them `prefetch_groups`
    groups of 32 columns early; more rows have enough to do with each. Unpacking the nibbles of a strip pays from
    `unpack_tiles` of the largest tiles on. These five are the row's tiling: they change speed and no bit.
    """

    kind: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    mtriple: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    dot: ByteDot
    tile_rows: tuple[int, ...]
    tile_queries: int
    prefetch_rows: int = 4
    prefetch_groups: int = 8
    unpack_tiles: int = 2
    machines: tuple[str, ...] = ()
    cores: int | None = None

    def llvm(self) -> dict[str, str | list[str]]:
        """TVM's target description."""
        described: dict[str, str | list[str]] = {"kind": "llvm", "mtriple": self.mtriple, "mcpu": self.mcpu}
        return described | ({"mattr": list(self.mattr)} if self.mattr else {})

    def tiling(self) -> dict[str, Any]:
        """What of the row decides how kernels are cut, and may be tuned; as JSON knows it."""
        return {**{name: getattr(self, name) for name in TILING}, "tile_rows": list(self.tile_rows)}
