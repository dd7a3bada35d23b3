"""What every benchmark says of the machine, how criteria are written, and how a measurement gets a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from mec_platform.domain.errors import MendableError

CHECKOUT = Path(__file__).resolve().parents[2]


class BenchmarkError(MendableError):
    """A part of a benchmark could not run; the message says why."""


def machine() -> dict[str, object]:
    """CPU, cores and interpreter."""
    cpu = _cpuinfo("model name") or platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count() or 1, "python": platform.python_version()}


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 tiles."""
    return "amx_bf16" in _cpuinfo("flags").split()


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def cpu_s(pid: int) -> float:
    """Seconds that a process has had a CPU for, in all its threads."""
    # The second field is the program's name in parentheses, and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory that a process has in RAM, its shared libraries included."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def at_least(name: str, value: float, bound: float) -> dict[str, object]:
    """A criterion that larger values meet."""
    return {"name": name, "value": value, "bound": bound, "ok": value >= bound}


def at_most(name: str, value: float, bound: float) -> dict[str, object]:
    """A criterion that smaller values meet."""
    return {"name": name, "value": value, "bound": bound, "ok": value <= bound}


def run_apart(module: str, *arguments: object) -> Any:
    """What `python -m tests.benchmarks.<module> <arguments>` prints as JSON.

    Raises:
        BenchmarkError: it failed.
    """
    return json.loads(run_tool([sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]))


def run_tool(command: list[str]) -> str:
    """What a program prints.

    Raises:
        BenchmarkError: it failed.
    """
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"{Path(command[0]).name} ended with {done.returncode}: {last}")
    return done.stdout
