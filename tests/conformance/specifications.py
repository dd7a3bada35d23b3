"""The OpenAPI files of the standard, where the machine has them: their routes and the schemas of their answers.

They are looked for in the folder that MEC_SPECS names, or in `../shared/specs` beside the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from mec_platform.enablement_api.app_support.handlers import ROOT as APPS
from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT as RADIO
from mec_platform.enablement_api.service_management.handlers import ROOT as SERVICES

WHERE = "needs the OpenAPI files of MEC 011 and 012: name their folder in MEC_SPECS"

WIRE_FILES = (
    ("etsi-mec011-MecAppSupportApi-2.1.1-oas31.yaml", APPS),
    ("etsi-mec011-MecServiceMgmtApi-2.1.1-oas31.yaml", SERVICES),
    ("advantedge-mec011-app-support-2.2.1.yaml", APPS),
    ("advantedge-mec011-service-mgmt-2.2.1.yaml", SERVICES),
    ("etsi-mec012-RniAPI.yaml", RADIO),
    ("advantedge-mec012-rnis-2.2.1.yaml", RADIO),
)
"""Files whose messages are those of the wire, and the root under which the platform offers their paths."""

LATEST_FILES = (
    ("mec-v3/MecAppSupportApi.yaml", APPS),
    ("mec-v3/MecServiceMgmtApi.yaml", SERVICES),
    ("mec-v3/RniAPI.yaml", RADIO),
)
"""3.1.1 of MEC 011, 2.2.1 of MEC 012: has registrations and liveness, but wraps every message in an attribute of its own."""

METHODS = ("get", "put", "post", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Specification:
    """One file, its paths made absolute."""

    file: str
    root: str
    document: dict[str, Any]

    def routes(self) -> Iterator[tuple[str, str]]:
        """Method and path of every operation."""
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield method.upper(), f"{self.root}{path}"

    def validator(self, method: str, path: str, status: int) -> jsonschema.Draft202012Validator | None:
        """What validates the body of this answer; None where the file says nothing of it."""
        item = self.document["paths"].get(path.removeprefix(self.root), {}) if path.startswith(self.root) else {}
        responses = {str(code): answer for code, answer in item.get(method.lower(), {}).get("responses", {}).items()}
        answer = self._resolve(responses.get(str(status), {}))
        media_type = "application/json" if status < 400 else "application/problem+json"
        schema = answer.get("content", {}).get(media_type, {}).get("schema")
        return None if schema is None else self.validator_of(schema)

    def validator_of(self, schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
        """Validates against a schema of this file, or one that refers to its components."""
        return jsonschema.Draft202012Validator({**schema, "components": self.document["components"]})

    def _resolve(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            target: Any = self.document
            for step in value["$ref"].removeprefix("#/").split("/"):
                target = target.get(step, target.get(int(step)) if step.isdigit() else None)
            value = target
        return value


@lru_cache
def wire_specifications() -> tuple[Specification, ...]:
    """2.1.1 and 2.2.1; empty where the machine does not have them."""
    return tuple(_load(file, root) for file, root in WIRE_FILES) if _folder() else ()


@lru_cache
def latest_specifications() -> tuple[Specification, ...]:
    """3.1.1; empty where the machine does not have it."""
    return tuple(_load(file, root) for file, root in LATEST_FILES) if _folder() else ()


def _folder() -> Path | None:
    named = os.environ.get("MEC_SPECS")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "specs"
    return folder if (folder / WIRE_FILES[0][0]).exists() else None


def _load(file: str, root: str) -> Specification:
    folder = _folder()
    assert folder is not None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with (folder / file).open() as opened:
        return Specification(file, root, yaml.load(opened, Loader=loader))
