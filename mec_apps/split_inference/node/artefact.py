"""Opens an artefact's folder: manifest read, `artefact_check` asked, library hashed. Nothing is loaded here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mec_apps.split_inference.node.artefact_check import (
    ArtefactError,
    MachineFacts,
    PackageFacts,
    check_artefact,
    check_library,
    read_artefact_facts,
)

LIBRARY = "lib.so"
_ELF_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_ELF_MACHINE = slice(18, 20)


def open_artefact(artefact_dir: Path, package: PackageFacts, machine: MachineFacts) -> dict[str, Any]:
    """The manifest of an artefact whose library this machine may load for this package.

    Raises:
        ArtefactError: it is missing, damaged, or does not fit; one line that says what to do.
    """
    try:
        manifest: dict[str, Any] = json.loads((artefact_dir / "manifest.json").read_text(encoding="utf-8"))
        library = (artefact_dir / LIBRARY).read_bytes()
    except FileNotFoundError as error:
        raise ArtefactError(f"no artefact in {artefact_dir}: {error.filename} is missing; run: mec compile") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"the artefact in {artefact_dir} is damaged ({error}); run: mec compile") from error
    facts = read_artefact_facts(artefact_dir.name, manifest)
    check_artefact(facts, machine, package)
    check_library(facts, _elf_machine(library), len(library), hashlib.sha256(library).hexdigest())
    return manifest


def _elf_machine(library: bytes) -> int | None:
    if library[: len(_ELF_IDENT)] != _ELF_IDENT or len(library) < _ELF_MACHINE.stop:
        return None
    return int.from_bytes(library[_ELF_MACHINE], "little")
