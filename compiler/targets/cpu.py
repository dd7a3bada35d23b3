"""The CPU rows. Adding a target is adding a row."""

from __future__ import annotations

from compiler.targets.row import CompileTarget

# Best first: `detect_local_target` takes the first row whose flags the machine has.
TARGETS = (
    CompileTarget(
        "x86-avx512-vnni",
        "x86_64",
        "x86_64-linux-gnu",
        "cascadelake",
        "vpdpbusd",
        (8, 4, 2, 1),
        12,
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512_vnni", "fma", "f16c"}),
    ),
    CompileTarget(
        "x86-avx2",
        "x86_64",
        "x86_64-linux-gnu",
        "haswell",
        "pmaddubsw",
        (2, 1),
        4,
        frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"}),
    ),
)
