"""EASProfile and ServiceAPIDescription fit the schemas of 3GPP, and every attribute of theirs is shown or left out for a reason.

The files are not part of this repository: MEC_3GPP_SPECS names a folder that has them (Release 18: TS29558_Eees_EASRegistration,
TS29558_Eecs_EESRegistration, TS29222_CAPIF_Publish_Service_API, and the TS29122, TS29571 and TS29572 files that they refer to).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from mec_platform.enablement_api.registry_view import messages
from mec_platform.enablement_api.registry_view.mapping import shown
from mec_platform.enablement_api.registry_view.projections import to_eas_profile, to_service_api
from tests.enablement_api.offers import every_kind

EAS = "TS29558_Eees_EASRegistration.yaml"
CAPIF = "TS29222_CAPIF_Publish_Service_API.yaml"

FOLDER = Path(os.environ.get("MEC_3GPP_SPECS") or Path(__file__).parents[3] / "shared" / "specs" / "3gpp")

pytestmark = pytest.mark.skipif(
    not (FOLDER / EAS).exists(), reason="set MEC_3GPP_SPECS to a folder with the OpenAPI files of 3GPP"
)

TYPES = (
    (EAS, "EASProfile", messages.EasProfile),
    (EAS, "EndPoint", messages.EasEndPoint),
    (CAPIF, "ServiceAPIDescription", messages.ServiceApiDescription),
    (CAPIF, "ApiStatus", messages.ApiStatus),
    (CAPIF, "AefProfile", messages.AefProfile),
    (CAPIF, "Version", messages.ApiVersion),
    (CAPIF, "InterfaceDescription", messages.InterfaceDescription),
    (CAPIF, "AefLocation", messages.AefLocation),
    (CAPIF, "ServiceKpis", messages.ApiServiceKpis),
)


@lru_cache
def load(file: str) -> Any:
    with (FOLDER / file).open(encoding="utf-8") as opened:
        return yaml.load(opened, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def validator(file: str, name: str) -> jsonschema.Draft202012Validator:
    registry: Registry[Any] = Registry(retrieve=lambda uri: Resource(load(uri), DRAFT202012))
    return jsonschema.Draft202012Validator({"$ref": f"{file}#/components/schemas/{name}"}, registry=registry)


def as_json(message: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(message))


def test_every_service_that_has_an_eas_profile_has_a_valid_one():
    profiles = [profile for each in every_kind() if (profile := to_eas_profile(each)) is not None]
    assert len(profiles) > 10
    for profile in profiles:
        validator(EAS, "EASProfile").validate(as_json(profile))


def test_every_service_is_a_valid_service_api():
    for each in every_kind():
        validator(CAPIF, "ServiceAPIDescription").validate(as_json(to_service_api(each)))


@pytest.mark.parametrize(("file", "name", "message"), TYPES)
def test_every_attribute_is_shown_or_left_out_for_a_reason(file, name, message):
    left_out = {each for names in messages.LEFT_OUT.get(message, {}) for each in names.split(", ")}
    assert set(shown(message)) | left_out == set(load(file)["components"]["schemas"][name]["properties"])
    assert not set(shown(message)) & left_out


def test_what_the_schemas_do_not_allow_is_found():
    with pytest.raises(jsonschema.ValidationError):
        validator(EAS, "EASProfile").validate({"easId": "faces", "endPt": {}})
