"""Loads what an artefact was compiled for: a model on the CPU, or on a device."""

from __future__ import annotations

from pathlib import Path

from mec_apps.split_inference.model_package import ModelPackage
from mec_apps.split_inference.node.artefact import open_artefact
from mec_apps.split_inference.node.artefact_check import MachineFacts, PackageFacts
from mec_apps.split_inference.node.compiled_model import CompiledModel
from mec_apps.split_inference.node.device_model import DEVICES, DeviceModel
from mec_apps.split_inference.node.stage_model import StageModel


def load_model(
    package: ModelPackage,
    artefact_dir: Path,
    machine: MachineFacts,
    *,
    threads: int,
    kv_pages: int,
    max_sessions: int,
    max_rows: int,
    context: int,
) -> StageModel:
    """The model of an artefact that this machine may run.

    Raises:
        ArtefactError: the artefact is missing, damaged, or was built for another model or machine.
        MemoryError: no room for it on the device.
        ValueError: a limit that cannot be kept.
    """
    limits = {
        "threads": threads,
        "kv_pages": kv_pages,
        "max_sessions": max_sessions,
        "max_rows": max_rows,
        "context": context,
    }
    facts = PackageFacts(package.spec.name, package.quantisation, package.interface)
    manifest = open_artefact(artefact_dir, facts, machine)
    if manifest.get("device") in DEVICES:
        return DeviceModel(package, artefact_dir, manifest, **limits)
    return CompiledModel(package, artefact_dir, **limits, machine=machine)
