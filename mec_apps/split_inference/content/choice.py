"""Which package and which artefact a node takes, of those that a store holds or a source offers: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mec_apps.split_inference.node.artefact_check import (
    ArtefactError,
    MachineFacts,
    PackageFacts,
    check_artefact,
    read_artefact_facts,
)
from mec_platform.content_store.weights import ManifestError, weight_parts


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry with its manifest."""

    key: str
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model by name and quantisation ("auto" for any), and the target of its artefact ("" for what suits best).

    Where this machine has a compiler, `package_key` and `source` (the hash of the kernels' code) are those of what it would
    build: what others have compiled from other code is then not taken for the same. "" where nothing is known.
    """

    model: str
    quantisation: str
    package_key: str = ""
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A package with the artefact that suits the machine best; or why nothing was chosen."""

    package: Candidate | None = None
    artefact: Candidate | None = None
    reason: str = ""


def choose_package(packages: Sequence[Candidate], wanted: Wanted) -> list[Candidate]:
    """Those of `packages` (the most recently used first) that are wanted."""
    return [
        each
        for each in packages
        if _model(each) == wanted.model
        and wanted.quantisation in ("auto", each.manifest.get("quantisation"))
        and wanted.package_key in ("", each.key)
        and _has_parts(each)
    ]


def choose_entries(
    packages: Sequence[Candidate], artefacts: Sequence[Candidate], wanted: Wanted, machine: MachineFacts | None
) -> Choice:
    """The first wanted package that has an artefact for `machine`; of its artefacts the one that uses most of it.

    Without a machine, which is a gateway's case, the first wanted package alone.
    """
    reason = f"no package of {wanted.model} ({wanted.quantisation})"
    for package in choose_package(packages, wanted):
        if machine is None:
            return Choice(package)
        manifest = package.manifest
        facts = PackageFacts(wanted.model, str(manifest.get("quantisation")), str(manifest.get("interface")))
        reason = f"no artefact for {wanted.model} ({facts.quantisation}{wanted.target and f', {wanted.target}'})"
        fitting = []
        for artefact in artefacts:
            if artefact.manifest.get("interface") != facts.interface:
                continue
            if wanted.target not in ("", artefact.manifest.get("target")):
                continue
            if wanted.source not in ("", artefact.manifest.get("source")):
                reason = f"artefact {artefact.key} was compiled from other code than this release has"
                continue
            try:
                found = read_artefact_facts(artefact.key, artefact.manifest)
                check_artefact(found, machine, facts)
            except ArtefactError as refusal:
                reason = str(refusal)
            else:
                fitting.append((found.target == machine.target, bool(found.gpu), len(found.features), artefact.key))
        if fitting:
            best = max(fitting)[-1]
            return Choice(package, next(each for each in artefacts if each.key == best))
    return Choice(reason=reason)


def _has_parts(package: Candidate) -> bool:
    """Packages of releases that hashed blocks only cannot be fetched in parts."""
    try:
        return bool(weight_parts(package.manifest))
    except ManifestError:
        return False


def _model(package: Candidate) -> Any:
    shape = package.manifest.get("shape")
    return shape.get("name") if isinstance(shape, dict) else None
