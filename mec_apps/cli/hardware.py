"""`mec node --show-hardware`: what this machine is, which target it gets, and why. `mec compile --list-targets`: all of them."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from compiler.targets.choice import TARGETS, TargetChoice, choose_target
from mec_apps.cli.requests import print_json
from mec_apps.split_inference.node.cores import available_cores
from mec_platform.domain.hardware import HardwareTarget


def print_hardware(as_json: bool) -> None:
    """The machine and its compile target, as text or as one JSON object.

    Raises:
        TargetError: this machine cannot run compiled models.
    """
    hardware = HardwareTarget.detect()
    choice = choose_target(hardware)
    if as_json:
        print_json(describe_hardware(hardware, choice, available_cores()))
        return
    for title, text in _lines(hardware, choice, available_cores()):
        click.echo(f"{title:11}{text}")


def print_targets(as_json: bool) -> None:
    """Every row of the target table, as a table or as a JSON list."""
    rows = [{"name": row.name, "kind": row.kind, "arch": row.arch, "summary": row.summary} for row in TARGETS]
    if as_json:
        print_json(rows)
        return
    table = Table("target", "kind", "machine", "for")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def describe_hardware(hardware: HardwareTarget, choice: TargetChoice, available: int) -> dict[str, Any]:
    """A machine and its target as plain data; `available` are the cores that this process may use."""
    return {
        "arch": hardware.arch,
        "board": hardware.board,
        "cpu_model": hardware.cpu_model,
        "cores": hardware.cores,
        "available_cores": available,
        "features": sorted(hardware.features),
        "cache_bytes": list(hardware.cache_bytes),
        "memory_bytes": hardware.memory_bytes,
        "gpus": [
            {"name": gpu.name, "capability": gpu.capability, "memory_bytes": gpu.memory_bytes} for gpu in hardware.gpus
        ],
        "target": {
            "name": choice.row.name,
            "summary": choice.row.summary,
            "features": sorted(choice.row.features),
            "reason": choice.reason,
            "is_fallback": choice.is_fallback,
        },
        "also": [row.name for row in choice.also],
    }


def _lines(hardware: HardwareTarget, choice: TargetChoice, available: int) -> list[tuple[str, str]]:
    caches = ", ".join(f"L{level} {size // 1024} KiB" for level, size in enumerate(hardware.cache_bytes, 1))
    gpus = [f"{gpu.name}, sm_{gpu.capability.replace('.', '')}, {gpu.memory_bytes >> 20} MiB" for gpu in hardware.gpus]
    board = [("board", hardware.board)] if hardware.board else []
    warning = [("warning", "a fallback: kernels for a nearer target would be faster")] if choice.is_fallback else []
    return [
        *board,
        ("cpu", f"{hardware.cpu_model} ({hardware.arch}), {hardware.cores} cores, {available} for this process"),
        ("caches", caches or "unknown"),
        ("memory", f"{hardware.memory_bytes >> 20} MiB"),
        *(("gpu", text) for text in gpus or ["none that NVIDIA's driver reports"]),
        ("target", f"{choice.row.name}: {choice.row.summary}"),
        ("because", choice.reason),
        *warning,
        ("also runs", ", ".join(row.name for row in choice.also) or "no other row"),
    ]
