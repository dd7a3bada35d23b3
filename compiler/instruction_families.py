"""Which families of instructions a build's kernels contain, counted in the compiler's own assembly text.

The evidence that a target's way to multiply, to fuse and to convert is in the machine code, without a disassembler for
every architecture. Reads text; what a target should contain is for tests to say.
"""

from __future__ import annotations

import re
from collections import Counter

# Name of a family: what its instructions' lines look like, the first that fits counts. On x86 the same instruction works
# on registers of several widths, which the name says: zmm 512 bits, ymm 256, xmm 128.
_WIDTH = r"%(?P<width>[zyx]mm)\d+(?!.*%[zyx]mm)"
_X86 = {
    "vpdpbusd": rf"(?:\{{(?:vex|evex)\}}\s+)?vpdpbusd\s.*{_WIDTH}",
    "pmaddubsw": rf"v?pmaddubsw\s.*{_WIDTH}",
    "pmaddwd": rf"v?pmaddwd\s.*{_WIDTH}",
    "fma": rf"vf(?:n?madd|n?msub)\w+ps\s.*{_WIDTH}",
    "mulps": rf"v?mulps\s.*{_WIDTH}",
    "float16": rf"vcvt(?:ph2psx?|ps2phx?)\s.*{_WIDTH}",
}
_ARM = {
    "usdot": r"usdot\s",
    "sdot": r"sdot\s",
    "smull": r"smull2?\s+v",
    "sadalp": r"sadalp\s",
    "fmla": r"fmla\s+v",
    "float16": r"fcvt[ln]2?\s+v",
    "sve": r"\w+\s+z\d+\.",
}
_FAMILIES = {"x86_64": _X86, "aarch64": _ARM}


def count_families(assembly: str, arch: str) -> dict[str, int]:
    """Instructions of each family in assembly text of LLVM for `arch`, those that occur, by name ("vpdpbusd zmm")."""
    pattern = re.compile(
        r"^\s+(?:" + "|".join(f"(?P<f{i}>{_named(p, i)})" for i, p in enumerate(_FAMILIES[arch].values())) + ")", re.M
    )
    names = list(_FAMILIES[arch])
    counts: Counter[str] = Counter()
    for match in pattern.finditer(assembly):
        groups = match.groupdict()
        index = next(i for i in range(len(names)) if groups[f"f{i}"] is not None)
        width = groups.get(f"width{index}")
        counts[f"{names[index]} {width}" if width else names[index]] += 1
    return dict(sorted(counts.items()))


def _named(pattern: str, index: int) -> str:
    return pattern.replace("(?P<width>", f"(?P<width{index}>")
