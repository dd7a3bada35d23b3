"""Cost profiles in the content store: `mec profile --save` puts them there, a node that starts finds its own again.

A profile belongs to what was measured: the bytes of the compiled library, the machine, and the threads. Counterpart: the
platform is told the profile with every report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mec_apps.split_inference.node.artefact import LIBRARY
from mec_apps.split_inference.node.artefact_check import MachineFacts
from mec_platform.content_store.entries import content_key, read_manifest, write_manifest
from mec_platform.content_store.store import ContentStore
from mec_platform.domain.cost_profile import CostProfile, RowCost

PROFILES = "profiles"


def profile_key(artefact_dir: Path, machine: MachineFacts, threads: int) -> str:
    """Key of the profile of an artefact on a machine; an artefact without a readable manifest has a key of its own."""
    files = (read_manifest(artefact_dir) or {}).get("files", {})
    library = files.get(LIBRARY, {}).get("sha256", str(artefact_dir))
    return content_key(library, machine.arch, machine.cpu_model, os.cpu_count(), threads)


def save_profile(
    store: ContentStore,
    key: str,
    profile: CostProfile,
    measured_at_s: float,
    points: Sequence[Mapping[str, Any]],
) -> Path:
    """Keeps a profile with what it was fitted to, in the place of an earlier one. `measured_at_s` is since 1970."""

    def build(fresh: Path) -> None:
        facts = {"kind": "profile", "measured_at_s": measured_at_s, "profile": asdict(profile), "points": list(points)}
        write_manifest(fresh, facts)

    store.replace(PROFILES, key, build)
    return store.folder(PROFILES, key)


def find_profile(store: ContentStore, key: str, now_s: float) -> CostProfile | None:
    """The saved profile with its age; None where there is none, or none that can be read."""
    manifest = store.find(PROFILES, key)
    try:
        if manifest is None:
            return None
        age_s = max(0.0, now_s - float(manifest["measured_at_s"]))
        return _read_profile({**manifest["profile"], "age_s": age_s})
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _read_profile(facts: Mapping[str, Any]) -> CostProfile:
    def rows(cost: Mapping[str, Any]) -> RowCost:
        return RowCost(float(cost["call_s"]), tuple(map(float, cost["tile_s"])))

    return CostProfile(
        **{**facts, "tile_rows": tuple(facts["tile_rows"]), "block": rows(facts["block"]), "head": rows(facts["head"])}
    )
