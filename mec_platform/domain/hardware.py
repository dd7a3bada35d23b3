"""The hardware of an edge node, as the compiler and the planner need it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HardwareTarget:
    """`compile_target` names a row of the compiler's target table; `threads` is what the node computes with."""

    arch: str
    cpu_model: str
    compile_target: str
    cores: int
    threads: int
