"""The routes of the platform are those of the files of the standard, but for what the table of deviations says."""

from __future__ import annotations

import pytest

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.operations import operations_of
from mec_platform.enablement_api.routes import make_enablement_app
from tests.conformance.deviations import ROUTES_BESIDE, ROUTES_WITHOUT
from tests.conformance.specifications import WHERE, latest_specifications, wire_specifications


def parameterless(route: str) -> str:
    """A route without the names of its parameters: the files differ in them."""
    return "/".join("{}" if part.startswith("{") else part for part in route.split("/"))


async def test_the_routes_are_those_of_the_standard(host):
    if not wire_specifications():
        pytest.skip(WHERE)
    specified = {
        parameterless(f"{method} {path}")
        for specification in (*wire_specifications(), *latest_specifications())
        for method, path in specification.routes()
    }
    beside = {parameterless(each.what) for each in ROUTES_BESIDE}
    without = {parameterless(each.what) for each in ROUTES_WITHOUT}
    rows = [row for row in operations_of(make_enablement_app(host)) if row.scope is not Scope.ADMIN]
    offered = {parameterless(f"{row.method} {row.path}") for row in rows}
    assert offered - specified == beside
    assert specified - offered == without


async def test_what_is_for_operators_lies_apart_from_the_apis_of_the_standard(host):
    rows = [row for row in operations_of(make_enablement_app(host)) if row.scope is Scope.ADMIN]
    assert {row.path.split("/")[1] for row in rows} == {"admin"}
