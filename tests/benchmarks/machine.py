"""What every benchmark says of the machine, and how criteria are written."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """CPU, cores and interpreter."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cores": os.cpu_count() or 1, "python": platform.python_version()}


def at_least(name: str, value: float, bound: float) -> dict[str, object]:
    """A criterion that larger values meet."""
    return {"name": name, "value": value, "bound": bound, "ok": value >= bound}


def at_most(name: str, value: float, bound: float) -> dict[str, object]:
    """A criterion that smaller values meet."""
    return {"name": name, "value": value, "bound": bound, "ok": value <= bound}
