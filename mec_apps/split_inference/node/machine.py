"""Reads what this machine can run, for `artefact_check` to compare with what an artefact needs."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import sys
from pathlib import Path

from mec_apps.split_inference.node.artefact_check import MachineFacts


def read_machine(name: str = "", target: str = "", gpus: tuple[str, ...] = ()) -> MachineFacts:
    """The facts of this machine; `name` is the node's, the host's by default."""
    cpu_model, features = _read_cpu()
    library = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    return MachineFacts(
        name=name or socket.gethostname(),
        arch=platform.machine(),
        system=f"{sys.platform}-{library}",
        cpu_model=cpu_model,
        features=features,
        target=target,
        tvm=_runtime_version(),
        gpus=gpus,
    )


def _read_cpu() -> tuple[str, frozenset[str]]:
    """The processor's name and features, both of its first core."""
    model, features = platform.machine(), frozenset[str]()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        what, _, value = line.partition(":")
        if what.strip() == "model name":
            model = value.strip()
        if what.strip() in ("flags", "Features"):
            features = frozenset(value.split())
            break
    return model, features


def _runtime_version() -> str:
    """TVM's version without importing it; "" where it is not an installed package."""
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        return ""
