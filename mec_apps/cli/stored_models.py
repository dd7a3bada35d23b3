"""What the content store holds of models, put together for `mec models`: packages, their artefacts, names, last use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mec_platform.content_store.entries import (
    ARTEFACTS,
    MODELS,
    NAMES,
    PARTIAL_MODELS,
    StoredEntry,
    read_manifest,
)
from mec_platform.content_store.store import ContentStore


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A package with the artefacts that can run it. `manifest` may lack anything: it is as it was found."""

    entry: StoredEntry
    manifest: dict[str, Any]
    artefacts: tuple[tuple[StoredEntry, dict[str, Any]], ...]

    @property
    def name(self) -> str:
        """What the package calls its model."""
        return str(self.manifest["shape"]["name"])

    def entries(self) -> list[StoredEntry]:
        """The package and its artefacts."""
        return [self.entry, *(entry for entry, _ in self.artefacts)]

    def facts(self) -> dict[str, Any]:
        """Plain data. Raises KeyError or TypeError where the manifest is damaged."""
        manifest = self.manifest
        return {
            "name": self.name,
            "quantisation": manifest["quantisation"],
            "blocks": manifest["shape"]["blocks"],
            "context": manifest["spec"]["context"],
            "weights_bytes": manifest["files"]["weights.bin"]["bytes"],
            "package": str(self.entry.folder),
            "is_whole": self.entry.kind == MODELS,
            **_entry_facts(self.entry),
            "artefacts": [
                {"target": facts.get("target", "?"), "artefact": str(entry.folder), **_entry_facts(entry)}
                for entry, facts in self.artefacts
            ],
        }


def read_models(store: ContentStore) -> tuple[list[StoredModel], list[Path]]:
    """All packages, whole and partial, by name; and the folders of damaged ones."""
    artefacts = [(entry, read_manifest(entry.folder) or {}) for entry in store.entries(ARTEFACTS)]
    models, damaged = [], []
    for entry in (*store.entries(MODELS), *store.entries(PARTIAL_MODELS)):
        manifest = read_manifest(entry.folder) or {}
        fitting = [
            (each, facts) for each, facts in artefacts if facts.get("interface", "") == manifest.get("interface", None)
        ]
        fitting.sort(key=lambda pair: str(pair[1].get("target")))
        model = StoredModel(entry, manifest, tuple(fitting))
        try:
            model.facts()
        except (KeyError, TypeError):
            damaged.append(entry.folder)
        else:
            models.append(model)
    return sorted(models, key=lambda model: (model.name, model.manifest["quantisation"])), damaged


def latest_builds(models: Sequence[StoredModel]) -> tuple[list[StoredModel], int]:
    """Of the builds of one model and quantisation, and of its artefacts for one target, those used last; and how many
    are left out. Others stem from earlier releases or files, and make room in time."""
    kept: dict[tuple[str, str], StoredModel] = {}
    for model in sorted(models, key=lambda model: model.entry.used_s):
        artefacts = {
            facts.get("target"): (entry, facts)
            for entry, facts in sorted(model.artefacts, key=lambda pair: pair[0].used_s)
        }
        kept[model.name, model.manifest["quantisation"]] = replace(
            model, artefacts=tuple(artefacts[target] for target in sorted(artefacts, key=str))
        )
    entries = {(entry.kind, entry.key) for model in models for entry in model.entries()}
    shown = {(entry.kind, entry.key) for model in kept.values() for entry in model.entries()}
    return [kept[key] for key in sorted(kept)], len(entries - shown)


def models_called(models: Sequence[StoredModel], name: str) -> list[StoredModel]:
    """Those of that name, or whose key begins with it (six characters at least)."""
    return [model for model in models if name == model.name or (len(name) >= 6 and model.entry.key.startswith(name))]


def entries_only_of(models: Sequence[StoredModel], everything: Sequence[StoredModel]) -> list[StoredEntry]:
    """Packages of `models`, and the artefacts that no other package can be run with."""
    keys = {model.entry.key for model in models}
    shared = {entry.key for model in everything if model.entry.key not in keys for entry, _ in model.artefacts}
    alone = {entry.key: entry for model in models for entry, _ in model.artefacts if entry.key not in shared}
    return [*(model.entry for model in models), *alone.values()]


def names_of(store: ContentStore, keys: set[str]) -> Iterator[tuple[str, str]]:
    """(name, key of the entry) of the imported names that stand for one of these packages."""
    for entry in store.entries(NAMES):
        manifest = read_manifest(entry.folder) or {}
        if keys & set(dict(manifest.get("packages") or {}).values()):
            yield str(manifest.get("name")), entry.key


def _entry_facts(entry: StoredEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "bytes_on_disk": entry.bytes_on_disk,
        "used_at": datetime.fromtimestamp(entry.used_s, UTC).isoformat(timespec="minutes"),
        "in_use": entry.is_in_use,
    }
