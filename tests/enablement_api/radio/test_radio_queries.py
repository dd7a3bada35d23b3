"""The queries of MEC 012: what was reported is answered, what was not is left out, and every parameter narrows."""

from __future__ import annotations

from typing import Any

import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.radio.reports import BearerReported, CellLoadReported, S1BearerReported, UeLoadReported
from mec_platform.radio.values import Bearer, BearerChange
from tests.enablement_api.radio.wishes import ASSOCIATE, ECGI
from tests.radio.reporting import RATES, TUNNEL, UE, A, B, ue

QUERIES = "/rni/v2/queries"
SECOND = ue("2001:db8::7")


@pytest.fixture
def told(network) -> None:
    """Two UEs in two cells, with bearers of each kind and some counters."""
    established = BearerChange.ESTABLISHED
    for report in (
        BearerReported(UE, A, change=established, bearer=Bearer(5, 9, RATES)),
        BearerReported(UE, A, change=established, bearer=Bearer(6)),
        BearerReported(SECOND, B, change=established, bearer=Bearer(5, 1)),
        S1BearerReported(UE, A, change=established, bearer=TUNNEL),
        UeLoadReported(UE, A, counters={"dl_gbr_delay_ue": 12}),
        CellLoadReported(A, {"dl_total_prb_usage_cell": 40, "received_randomly_selected_preambles_low_range_cell": 3}),
        CellLoadReported(B, {"dl_total_prb_usage_cell": 60}),
    ):
        network.take(report, "a test")


async def ask(client, query: str, status: int = 200) -> Any:
    response = await client.get(f"{QUERIES}/{query}")
    assert response.status == status, await response.text()
    return await response.json()


@pytest.mark.usefixtures("told")
async def test_bearers_are_listed_by_cell_with_what_is_known_of_them(client):
    info = await ask(client, "rab_info?app_ins_id=app-1")
    assert info["appInstanceId"] == "app-1"
    assert info["requestId"]
    assert info["cellUserInfo"][0] == {
        "ecgi": ECGI,
        "ueInfo": [
            {
                "associateId": [ASSOCIATE],
                "erabInfo": [
                    {
                        "erabId": 5,
                        "erabQosParameters": {
                            "qci": 9,
                            "qosInformation": {"erabMbrDl": 4, "erabMbrUl": 3, "erabGbrDl": 2, "erabGbrUl": 1},
                        },
                    },
                    {"erabId": 6},
                ],
            }
        ],
    }


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("query", "bearers"),
    [
        ("", ["A5", "A6", "B5"]),
        ("cell_id=5c4225714", ["A5", "A6"]),
        ("cell_id=5C4225714,5C422503D", ["A5", "A6", "B5"]),
        ("cell_id=5C4225714&cell_id=5C422503D", ["A5", "A6", "B5"]),
        ("ue_ipv4_address=198.51.100.7", ["A5", "A6"]),
        ("ue_ipv6_address=2001:db8:0::7,2001:db8::8", ["B5"]),
        ("ue_ipv4_address=198.51.100.7&ue_ipv6_address=2001:db8::7", ["A5", "A6", "B5"]),
        ("nated_ip_address=198.51.100.7", []),
        ("gtp_teid=1a", []),
        ("erab_id=5", ["A5", "B5"]),
        ("qci=9", ["A5"]),
        ("erab_mbr_dl=4", ["A5"]),
        ("erab_mbr_ul=4", []),
        ("erab_gbr_dl=2&erab_gbr_ul=1", ["A5"]),
    ],
)
async def test_parameters_narrow_the_bearers(client, query, bearers):
    info = await ask(client, f"rab_info?{query}")
    names = {"5C4225714": "A", "5C422503D": "B"}
    assert [
        f"{names[cell['ecgi']['cellId']]}{bearer['erabId']}"
        for cell in info["cellUserInfo"]
        for each in cell["ueInfo"]
        for bearer in each["erabInfo"]
    ] == bearers


@pytest.mark.usefixtures("told")
async def test_networks_are_told_to_application_instances_that_are_there(client, host):
    app = await host.applications.register(AppDescription(name="greeter"))
    infos = await ask(client, f"plmn_info?app_ins_id={app.app_instance_id},nobody")
    assert [(each["appInstanceId"], each["plmn"]) for each in infos] == [
        (app.app_instance_id, [{"mcc": "001", "mnc": "01"}])
    ]
    await ask(client, "plmn_info", 400)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("temp_ue_id=2b3c", True),
        ("temp_ue_id=2b3d", False),
        ("erab_id=4,5", True),
        ("erab_id=4", False),
        ("cell_id=5C422503D", False),
        ("ue_ipv4_address=198.51.100.7", True),
        ("gtp_teid=1", False),
    ],
)
async def test_s1_bearers_are_found_or_there_are_none(client, query, found):
    answer = await ask(client, f"s1_bearer_info?{query}", 200 if found else 404)
    if found:
        (info,) = answer["s1UeInfo"]
        assert info["s1BearerInfoDetailed"] == [
            {
                "erabId": 5,
                "enbInfo": {"ipAddress": "192.0.2.1", "tunnelId": "1a"},
                "sGwInfo": {"ipAddress": "192.0.2.2", "tunnelId": "1b"},
            }
        ]
        assert info["tempUeId"] == {"mmec": "1a", "mtmsi": "2b3c"}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("query", "cells", "ues"),
    [
        ("", ["5C4225714", "5C422503D"], 1),
        ("dl_total_prb_usage_cell=60", ["5C422503D"], 1),
        ("received_randomly_selecte_preambles_low_range_cell=3", ["5C4225714"], 1),
        ("dl_gbr_delay_ue=12&cell_id=5C4225714", ["5C4225714"], 1),
        ("dl_gbr_delay_ue=13", ["5C4225714", "5C422503D"], 0),
        ("ue_ipv4_address=198.51.100.7", [], 1),
    ],
)
async def test_layer_two_measurements_are_those_that_were_told(client, query, cells, ues):
    info = await ask(client, f"layer2_meas?{query}")
    assert [each["ecgi"]["cellId"] for each in info["cellInfo"]] == cells
    assert info["cellUEInfo"] == [{"ecgi": ECGI, "associateId": ASSOCIATE, "dl_gbr_delay_ue": 12}][:ues]


async def test_where_nothing_was_reported_nothing_is_answered(client, host):
    app = await host.applications.register(AppDescription(name="greeter"))
    assert (await ask(client, "rab_info"))["cellUserInfo"] == []
    assert await ask(client, f"plmn_info?app_ins_id={app.app_instance_id}") == []
    await ask(client, "s1_bearer_info", 404)
    info = await ask(client, "layer2_meas")
    assert (info["cellInfo"], info["cellUEInfo"]) == ([], [])


@pytest.mark.parametrize(
    "query",
    [
        "rab_info?nonsense=1",
        "rab_info?ue_ipv4_address=1.2.3",
        "rab_info?erab_id=16",
        "rab_info?qci=high",
        "rab_info?qci=1&qci=2",
        "s1_bearer_info?erab_id=5,16",
        "layer2_meas?dl_gbr_delay_ue=-1",
    ],
)
async def test_what_is_no_parameter_or_no_value_is_a_bad_request(client, query):
    await ask(client, query, 400)
