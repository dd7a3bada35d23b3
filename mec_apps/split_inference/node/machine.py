"""Reads what this machine can run, for `artefact_check` to compare with what an artefact needs."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import sys

from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_platform.domain.hardware import HardwareTarget


def read_machine(name: str = "", target: str = "", hardware: HardwareTarget | None = None) -> MachineFacts:
    """The facts of this machine; `name` is the node's, the host's by default. `hardware` saves probing it again."""
    found = hardware or HardwareTarget.detect()
    library = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    return MachineFacts(
        name=name or socket.gethostname(),
        arch=found.arch,
        system=f"{sys.platform}-{library}",
        cpu_model=found.cpu_model,
        features=found.features,
        target=target,
        tvm=_runtime_version(),
        gpus=tuple(gpu.capability for gpu in found.gpus),
    )


def _runtime_version() -> str:
    """TVM's version without importing it; "" where it is not an installed package."""
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError:
        return ""
