"""ETags and If-Match: a change is held to the version that its client has seen."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mec_platform.enablement_api.app_support.timing import CurrentTime, TimeSourceStatus
from mec_platform.enablement_api.exchange import check_if_match, entity_tag
from mec_platform.enablement_api.problem_details import PreconditionFailed

NOW = CurrentTime(seconds=1, nano_seconds=2, time_source_status=TimeSourceStatus.TRACEABLE)
TAG = entity_tag(NOW)


def request(*if_match: str):
    return make_mocked_request("PUT", "/", headers=CIMultiDict([("If-Match", each) for each in if_match]))


def test_equal_content_has_an_equal_strong_tag():
    assert entity_tag(CurrentTime(seconds=1, nano_seconds=2, time_source_status=TimeSourceStatus.TRACEABLE)) == TAG
    assert entity_tag(CurrentTime(seconds=1, nano_seconds=3, time_source_status=TimeSourceStatus.TRACEABLE)) != TAG
    assert TAG.startswith('"')
    assert TAG.endswith('"')


@pytest.mark.parametrize("if_match", [[], ["*"], [TAG], [f'"other", {TAG}'], ['"other"', TAG], [f'"a,b",{TAG}']])
def test_a_change_goes_on_where_its_version_is_named_or_none_is(if_match):
    check_if_match(request(*if_match), TAG)


@pytest.mark.parametrize("if_match", [['"other"'], [f"W/{TAG}"], [TAG.strip('"')], [""], [f'"other", W/{TAG}']])
def test_a_change_to_another_version_is_refused_and_told_the_present_one(if_match):
    with pytest.raises(PreconditionFailed, match=TAG):
        check_if_match(request(*if_match), TAG)
