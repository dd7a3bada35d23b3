"""The service management API against the flat wire shape of the standard, field by field."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.enablement_api.routes import make_enablement_app

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"


def path_of(service: dict) -> str:
    return urlsplit(service["_links"]["self"]["href"]).path


async def test_a_new_service_is_answered_whole(client, app_id, offer):
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer)
    assert response.status == 201
    assert response.content_type == "application/json"
    service = await response.json()
    location = response.headers["Location"]
    assert urlsplit(location).path == f"{SERVICES}/applications/{app_id}/services/{service['serInstanceId']}"
    added = {"serInstanceId": service["serInstanceId"], "isLocal": True, "_links": {"self": {"href": location}}}
    assert service == offer | added
    assert await (await client.get(urlsplit(location).path)).json() == service
    assert await (await client.get(f"{SERVICES}/services/{service['serInstanceId']}")).json() == service


async def test_fills_in_the_defaults_of_the_standard(client, app_id, offer):
    del offer["scopeOfLocality"], offer["consumedLocalOnly"], offer["serCategory"]
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer)
    service = await response.json()
    assert (service["scopeOfLocality"], service["consumedLocalOnly"]) == ("MEC_HOST", True)
    assert "serCategory" not in service
    assert "livenessInterval" not in service
    assert "liveness" not in service["_links"]


async def test_ignores_attributes_that_only_the_platform_writes(client, app_id, offer):
    read_only = {"serInstanceId": "mine", "isLocal": False, "_links": {"self": {"href": "x"}}}
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer | read_only)
    assert response.status == 201
    service = await response.json()
    assert service["serInstanceId"] != "mine"
    assert service["isLocal"] is True


async def test_a_platform_transport_is_resolved_in_the_answer(client, app_id, offer):
    (transport,) = await (await client.get(f"{SERVICES}/transports")).json()
    assert set(transport) == {"id", "name", "description", "type", "protocol", "version", "endpoint", "security"}
    del offer["transportInfo"]
    response = await client.post(
        f"{SERVICES}/applications/{app_id}/services", json=offer | {"transportId": transport["id"]}
    )
    assert response.status == 201
    service = await response.json()
    assert service["transportInfo"] == transport
    assert "transportId" not in service


@pytest.mark.parametrize(
    "endpoint",
    [
        {"uris": []},
        {"fqdn": ["greeting.example"]},
        {"addresses": [{"host": "192.0.2.1", "port": 80}]},
        {"alternative": {"topic": ["a", 1, None]}},
    ],
)
async def test_every_kind_of_endpoint_comes_back_as_it_was_sent(client, app_id, offer, endpoint):
    offer["transportInfo"]["endpoint"] = endpoint
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer)
    assert (await response.json())["transportInfo"]["endpoint"] == endpoint


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"serName": None}, "serName"),
        ({"serName": ""}, "serName"),
        ({"version": 1}, "version"),
        ({"state": "RUNNING"}, "state"),
        ({"serializer": "YAML"}, "serializer"),
        ({"scopeOfLocality": "GALAXY"}, "scopeOfLocality"),
        ({"consumedLocalOnly": "yes"}, "consumedLocalOnly"),
        ({"livenessInterval": -1}, "livenessInterval"),
        ({"livenessInterval": True}, "livenessInterval"),
        ({"serCategory": {"id": "x"}}, "serCategory"),
        ({"transportInfo": None}, "transportInfo"),
        ({"transportId": "rest-http"}, "transportId"),
        ({"transportId": "pigeon", "transportInfo": None}, "pigeon"),
    ],
)
async def test_refuses_a_service_and_says_what_is_wrong(client, app_id, offer, change, hint):
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer | change)
    assert response.status == 400
    assert hint in (await response.json())["detail"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("security", None),
        ("endpoint", {}),
        ("endpoint", {"uris": ["a"], "alternative": {}}),
        ("type", "CARRIER"),
        ("security", {"oAuth2Info": {"grantTypes": [], "tokenEndpoint": "x"}}),
        ("security", {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"]}}),
    ],
)
async def test_refuses_a_transport_that_is_not_complete(client, app_id, offer, attribute, value):
    offer["transportInfo"][attribute] = value
    response = await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer)
    assert response.status == 400
    assert attribute in (await response.json())["detail"]


async def test_replaces_a_service(client, service, offer):
    response = await client.put(path_of(service), json=offer | {"version": "2.0", "state": "INACTIVE"})
    assert response.status == 200
    changed = await response.json()
    assert changed == service | {"version": "2.0", "state": "INACTIVE"}
    assert await (await client.get(path_of(service))).json() == changed


async def test_an_answer_can_be_put_back_as_it_came(client, service):
    response = await client.put(path_of(service), json=service)
    assert (response.status, await response.json()) == (200, service)


async def test_a_replacement_spells_its_transport_out(client, service, offer):
    del offer["transportInfo"]
    response = await client.put(path_of(service), json=offer | {"transportId": "rest-http"})
    assert response.status == 400


async def test_removes_a_service_once(client, service):
    response = await client.delete(path_of(service))
    assert (response.status, await response.read()) == (204, b"")
    assert (await client.delete(path_of(service))).status == 404
    assert await (await client.get(f"{SERVICES}/services")).json() == []


async def test_a_service_is_not_found_below_another_application(client, service, offer):
    other = await (await client.post("/mec_app_support/v2/registrations", json={"appName": "other"})).json()
    path = f"{SERVICES}/applications/{other['appInstanceId']}/services/{service['serInstanceId']}"
    answers = [
        await client.get(path),
        await client.put(path, json=offer),
        await client.delete(path),
        await client.get(f"{path}/liveness"),
        await client.patch(f"{path}/liveness", json={"state": "ACTIVE"}),
    ]
    assert [answer.status for answer in answers] == [404] * 5
    own = await client.get(f"{SERVICES}/applications/{other['appInstanceId']}/services")
    assert await own.json() == []


@pytest.mark.parametrize("unknown", ["5e1bd1a1-32d4-4d5e-9f4b-6a3c7b2f8d10", "no-uuid"])
async def test_unknown_ids_are_not_found_whatever_the_body(client, unknown):
    root = f"{SERVICES}/applications/{unknown}/services"
    answers = [
        await client.get(root),
        await client.post(root, data=b"no json"),
        await client.get(f"{root}/{unknown}"),
        await client.put(f"{root}/{unknown}", data=b"no json"),
        await client.delete(f"{root}/{unknown}"),
        await client.patch(f"{root}/{unknown}/liveness", data=b"no json"),
        await client.get(f"{SERVICES}/services/{unknown}"),
    ]
    assert [answer.status for answer in answers] == [404] * 7


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("ser_name=greeting", True),
        ("ser_name=other", False),
        ("ser_name=other&ser_name=greeting", True),
        ("ser_instance_id={id}&ser_instance_id=other", True),
        ("ser_instance_id=other", False),
        ("ser_category_id=cat-1", True),
        ("ser_category_id=cat", False),
        ("consumed_local_only=false", True),
        ("consumed_local_only=true", False),
        ("is_local=true", True),
        ("is_local=false", False),
        ("scope_of_locality=MEC_SYSTEM", True),
        ("scope_of_locality=ZONE", False),
        ("ser_name=greeting&is_local=true&scope_of_locality=MEC_SYSTEM", True),
        ("ser_name=greeting&is_local=false", False),
    ],
)
async def test_filters_services(client, app_id, service, query, found):
    query = query.format(id=service["serInstanceId"])
    for path in (f"{SERVICES}/services", f"{SERVICES}/applications/{app_id}/services"):
        response = await client.get(f"{path}?{query}")
        assert (response.status, await response.json()) == (200, [service] if found else [])


@pytest.mark.parametrize(
    "query",
    [
        "ser_name=a&ser_instance_id=b",
        "ser_name=a&ser_category_id=b",
        "ser_instance_id=a&ser_category_id=b",
        "ser_category_id=a&ser_category_id=b",
        "consumed_local_only=maybe",
        "is_local=",
        "scope_of_locality=GALAXY",
        "instance_id=a",
        "SER_NAME=a",
    ],
)
async def test_refuses_filters_that_make_no_sense(client, query):
    response = await client.get(f"{SERVICES}/services?{query}")
    assert response.status == 400
    assert query.split("=")[0] in (await response.json())["detail"]


async def test_liveness_is_linked_told_and_renewed(client, service, clock):
    assert service["livenessInterval"] == 10
    liveness = urlsplit(service["_links"]["liveness"]["href"]).path
    clock.now_s += 3
    heartbeat = await client.patch(liveness, json={"state": "ACTIVE"})
    assert (heartbeat.status, await heartbeat.read()) == (204, b"")
    clock.now_s += 5
    response = await client.get(liveness)
    assert await response.json() == {
        "state": "ACTIVE",
        "timeStamp": {"seconds": 1_700_000_003, "nanoSeconds": 250_000_000},
        "interval": 10,
    }


async def test_a_silent_service_is_suspended_until_it_is_heard_again(client, service, clock, host):
    liveness = urlsplit(service["_links"]["liveness"]["href"]).path
    clock.now_s += 16
    await host.services.suspend_overdue()
    assert (await (await client.get(path_of(service))).json())["state"] == "SUSPENDED"
    assert (await (await client.get(liveness)).json())["state"] == "SUSPENDED"
    assert (await client.patch(liveness, json={"state": "ACTIVE"})).status == 204
    assert (await (await client.get(path_of(service))).json())["state"] == "ACTIVE"


@pytest.mark.parametrize("body", [{"state": "INACTIVE"}, {"state": 1}, {}])
async def test_a_heartbeat_says_active(client, service, body):
    liveness = urlsplit(service["_links"]["liveness"]["href"]).path
    assert (await client.patch(liveness, json=body)).status == 400


async def test_a_service_without_heartbeats_has_no_liveness(client, app_id, offer):
    service = await (await client.post(f"{SERVICES}/applications/{app_id}/services", json=offer)).json()
    assert (await client.get(f"{path_of(service)}/liveness")).status == 404


async def test_a_body_of_any_content_type_is_json(client, app_id, offer):
    response = await client.post(
        f"{SERVICES}/applications/{app_id}/services", data=json.dumps(offer), headers={"Content-Type": "*/*"}
    )
    assert response.status == 201


async def test_a_replacement_may_name_the_version_that_it_replaces(client, service):
    tag = (await client.get(path_of(service))).headers["ETag"]
    replaced = await client.put(path_of(service), json=service | {"state": "INACTIVE"}, headers={"If-Match": tag})
    assert replaced.status == 200
    assert replaced.headers["ETag"] != tag
    late = await client.put(path_of(service), json=service | {"version": "2"}, headers={"If-Match": tag})
    assert late.status == 412
    assert (await (await client.get(path_of(service))).json())["state"] == "INACTIVE"


async def test_of_two_replacements_of_one_version_one_is_refused(client, service):
    tag = (await client.get(path_of(service))).headers["ETag"]
    answers = await asyncio.gather(
        *(client.put(path_of(service), json=service | {"version": v}, headers={"If-Match": tag}) for v in "23")
    )
    assert sorted(answer.status for answer in answers) == [200, 412]


async def test_every_consumer_sees_the_same_version(client, service):
    of_anyone = await client.get(f"{SERVICES}/services/{service['serInstanceId']}")
    assert of_anyone.headers["ETag"] == (await client.get(path_of(service))).headers["ETag"]


async def test_what_was_written_before_a_change_is_not_answered_after_it(client, service):
    for state in ("INACTIVE", "ACTIVE", "INACTIVE"):
        assert (await client.put(path_of(service), json=service | {"state": state})).status == 200
        assert (await (await client.get(path_of(service))).json())["state"] == state


async def test_links_begin_with_the_address_that_the_client_has_used(client, service):
    found = await (await client.get(path_of(service), headers={"Host": "mec.example:8443"})).json()
    assert found["_links"]["self"]["href"] == f"http://mec.example:8443{path_of(service)}"
    found = await (await client.get(path_of(service))).json()
    assert found["_links"]["self"]["href"] == str(client.make_url(path_of(service)))


async def test_links_begin_with_the_public_uri_where_the_operator_has_set_one(host, offer):
    app = make_enablement_app(host, public_uri="https://mec.example")
    async with TestClient(TestServer(app)) as client:
        response = await client.post(f"{APPS}/registrations", json={"appName": "greeter"})
        assert response.headers["Location"].startswith(f"https://mec.example{APPS}/registrations/")
