"""Models that a user has imported under a name: from then on the name stands for the package, and for its source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compiler.errors import ModelFileError
from compiler.models.locate import DEFAULT_MODEL
from compiler.quantisation import AUTO
from mec_platform.content_store.entries import MODELS, NAMES, content_key, write_manifest
from mec_platform.content_store.store import ContentStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """`source` is the model file or folder; `packages` are keys by quantisation, the latest import last."""

    name: str
    source: str
    packages: Mapping[str, str]

    def package_key(self, quantisation: str) -> str | None:
        """Key of the package in this quantisation, the latest for "auto"; None where there is none."""
        if quantisation == AUTO:
            return list(self.packages.values())[-1] if self.packages else None
        return self.packages.get(quantisation)


def find_import(name: str, store: ContentStore) -> ImportedModel | None:
    """What was imported under `name`; None where nothing was."""
    if name == DEFAULT_MODEL or _NAME.fullmatch(name) is None:
        return None
    manifest = store.find(NAMES, content_key(name))
    if manifest is None:
        return None
    return ImportedModel(name, str(manifest["source"]), dict(manifest["packages"]))


def imported_package(model: str, quantisation: str, store: ContentStore) -> str | None:
    """Key of the package that `model` stands for; None where it is no imported name, or the package is gone."""
    imported = find_import(model, store)
    key = None if imported is None else imported.package_key(quantisation)
    return key if key is not None and store.find(MODELS, key) is not None else None


def check_name(name: str) -> None:
    """Raises ModelFileError where a model cannot be called `name`."""
    if name == DEFAULT_MODEL or _NAME.fullmatch(name) is None:
        raise ModelFileError(
            f"a model cannot be imported as '{name}'; use letters, digits, '.', '_' and '-', and not '{DEFAULT_MODEL}'"
        )


def record_import(name: str, source: Path, quantisation: str, package_key: str, store: ContentStore) -> None:
    """Lets `name` stand for a package from now on, in this quantisation; others that it stood for stay."""
    before = find_import(name, store)
    same_source = before is not None and before.source == str(source)
    packages = dict(before.packages) if before is not None and same_source else {}
    packages.pop(quantisation, None)
    manifest = {
        "kind": "name",
        "name": name,
        "source": str(source),
        "packages": {**packages, quantisation: package_key},
    }
    store.replace(NAMES, content_key(name), lambda folder: write_manifest(folder, manifest))
