"""The hardware of an edge node, as the compiler and the planner need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that its driver reports. `capability` is NVIDIA's compute capability, as "8.6"."""

    name: str
    capability: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class HardwareTarget:
    """A machine. What could not be read is empty or zero.

    `arch` is as `uname -m` prints it; `board` is the name of a single-board computer. `compile_target` names a row of
    the compiler's target table; `threads` is what the node computes with. `features` are in the kernel's own names
    (/proc/cpuinfo); `cache_bytes` are the first core's data caches, from level 1.
    """

    arch: str
    cpu_model: str
    compile_target: str
    cores: int
    threads: int
    board: str = ""
    features: frozenset[str] = frozenset()
    cache_bytes: tuple[int, ...] = ()
    memory_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()

    @classmethod
    def detect(cls, root: Path = Path("/"), arch: str | None = None) -> HardwareTarget:
        """This machine, or the one whose /proc and /sys lie under `root`; `arch` is this machine's where None.

        `compile_target` stays empty: choosing a row is the compiler's business. `threads` is every core.
        """
        from mec_platform.domain.hardware_probe import probe  # which builds values of this module

        return probe(root, arch)
