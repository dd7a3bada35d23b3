"""Operators make application instances, end them gracefully or at once, and remove them, over REST."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mec_platform.domain.applications import AppDescription, AppState
from mec_platform.domain.locality import Area, LocalityTree, LocalityType
from mec_platform.enablement_api.examples import EXAMPLES
from mec_platform.enablement_api.routes import make_enablement_app

INSTANCES = "/admin/v1/app_instances"
APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"

DESCRIBED = EXAMPLES["createAppInstance"]


async def create(client, **attributes) -> dict:
    response = await client.post(INSTANCES, json={"appName": "greeter"} | attributes)
    assert response.status == 201, await response.text()
    return await response.json()


async def change(client, app_id: str, what: str, body: dict, status: int = 202) -> dict:
    response = await client.post(f"{INSTANCES}/{app_id}/{what}", json=body)
    assert response.status == status, await response.text()
    return await response.json()


async def state_of(client, app_id: str) -> str:
    return (await (await client.get(f"{INSTANCES}/{app_id}")).json())["operationalState"]


async def test_an_instance_comes_with_its_rules_and_with_credentials_of_its_own(client, host):
    response = await client.post(INSTANCES, json=DESCRIBED)
    made = await response.json()
    assert response.status == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert urlsplit(response.headers["Location"]).path == f"{INSTANCES}/faces-1"
    credentials = made.pop("credentials")
    assert credentials["clientId"] == made["clientId"] == "faces-1"
    assert host.credentials.find("faces-1", credentials["clientSecret"]) is not None
    assert made["operationalState"] == "NOT_READY"
    assert made["isInsByMec"] is True
    rules = await client.get(f"{APPS}/applications/faces-1/dns_rules")
    assert await rules.json() == made["dnsRules"] == DESCRIBED["dnsRules"]
    rules = await client.get(f"{APPS}/applications/faces-1/traffic_rules")
    assert await rules.json() == made["trafficRules"] == DESCRIBED["trafficRules"]
    # The secret is told once.
    assert await (await client.get(f"{INSTANCES}/faces-1")).json() == made
    assert await (await client.get(INSTANCES)).json() == [made]


async def test_rules_wait_for_their_application_unless_the_descriptor_says_otherwise(client):
    rule = {key: value for key, value in DESCRIBED["dnsRules"][0].items() if key != "state"}
    made = await create(client, dnsRules=[rule])
    assert made["dnsRules"][0]["state"] == "INACTIVE"


async def test_the_id_is_the_platforms_unless_one_is_given(client):
    first, second = await create(client), await create(client)
    assert first["appInstanceId"] != second["appInstanceId"]
    response = await client.post(INSTANCES, json={"appName": "x", "appInstanceId": first["appInstanceId"]})
    assert response.status == 409


async def test_several_instances_may_belong_to_one_client(client, host):
    owner, _ = await host.credentials.create([], "owner")
    for _ in range(2):
        made = await create(client, clientId="owner")
        assert made["clientId"] == owner.client_id
        assert "credentials" not in made
    response = await client.post(INSTANCES, json={"appName": "x", "clientId": "nobody"})
    assert response.status == 400
    assert "nobody" in (await response.json())["detail"]


async def test_a_taken_client_id_leaves_no_instance_behind(client, host):
    await host.credentials.create([], "taken")
    response = await client.post(INSTANCES, json={"appName": "x", "appInstanceId": "taken"})
    assert response.status == 409
    assert host.applications.find("taken") is None


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"appName": ""}, "appName"),
        ({"appInstanceId": "no spaces"}, "appInstanceId"),
        ({"dnsRule": []}, "dnsRule"),
        ({"dnsRules": [DESCRIBED["dnsRules"][0]] * 2}, "dnsRules has two rules of one id"),
        ({"trafficRules": [{"trafficRuleId": "x"}]}, "trafficRules[0]"),
        ({"clientId": "a", "scopes": ["admin"]}, "leave one of clientId and scopes out"),
        ({"scopes": []}, "scopes"),
        ({"locality": {"mecHost": "elsewhere"}}, "locality"),
    ],
)
async def test_refuses_what_makes_no_instance_and_names_the_attribute(client, host, attributes, named):
    response = await client.post(INSTANCES, json={"appName": "greeter"} | attributes)
    assert response.status == 400
    assert named in (await response.json())["detail"]
    assert host.applications.all() == []


async def test_an_instance_is_put_where_the_operator_says(host):
    areas = [
        Area(LocalityType.ZONE, "harbour"),
        Area(LocalityType.MEC_HOST, "host-2", (LocalityType.ZONE, "harbour")),
        Area(LocalityType.NFVI_NODE, "node-a", (LocalityType.MEC_HOST, "host-2")),
    ]
    app = make_enablement_app(host, localities=LocalityTree.grow(areas))
    async with TestClient(TestServer(app)) as client:
        made = await create(client, locality={"nfviNode": "node-a"})
        assert made["locality"] == {"mecHost": "host-2", "nfviNode": "node-a", "zone": "harbour"}
        response = await client.post(INSTANCES, json={"appName": "x", "locality": {"mecHost": "host-9"}})
        assert "host-9" in (await response.json())["detail"]


async def test_a_graceful_end_waits_for_the_confirmation_and_keeps_the_services_until_then(client, app_id, service):
    info = await change(client, app_id, "terminate", {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 30})
    assert info["operationalState"] == "TERMINATING"
    assert info["services"] == 1
    assert info["pendingEnd"] == {
        "operationAction": "TERMINATING",
        "maxGracefulTimeout": 30,
        "deadlineUnixS": 1_700_000_030,
    }
    confirm = f"{APPS}/applications/{app_id}/confirm_termination"
    assert (await client.post(confirm, json={"operationAction": "STOPPING"})).status == 409
    assert (await client.get(f"{SERVICES}/services/{service['serInstanceId']}")).status == 200
    confirmed = await client.post(confirm, json={"operationAction": "TERMINATING"})
    assert (confirmed.status, await confirmed.read()) == (204, b"")
    assert await state_of(client, app_id) == "TERMINATED"
    assert (await client.get(f"{SERVICES}/services/{service['serInstanceId']}")).status == 404


async def test_confirming_an_end_that_nobody_asked_for_is_harmless(client, app_id):
    confirm = f"{APPS}/applications/{app_id}/confirm_termination"
    assert (await client.post(confirm, json={"operationAction": "TERMINATING"})).status == 204
    assert await state_of(client, app_id) == "NOT_READY"
    assert (await client.post(confirm, json={"operationAction": "LEAVING"})).status == 400
    unknown = f"{APPS}/applications/unknown/confirm_termination"
    assert (await client.post(unknown, json={"operationAction": "TERMINATING"})).status == 404


async def test_a_forceful_end_is_an_end_at_once(client, app_id, service):
    info = await change(client, app_id, "terminate", {"terminationType": "FORCEFUL"})
    assert (info["operationalState"], info["services"]) == ("TERMINATED", 0)
    # Again: nothing more happens. Another end: it is too late for that.
    await change(client, app_id, "terminate", {"terminationType": "FORCEFUL"})
    await change(client, app_id, "operate", {"changeStateTo": "STOPPED"}, status=409)


async def test_a_stopped_instance_keeps_its_rules_and_may_be_started_again(client):
    await create(client, **DESCRIBED)
    stopped = await change(client, "faces-1", "operate", {"changeStateTo": "STOPPED"})
    assert stopped["operationalState"] == "STOPPED"
    assert [rule["state"] for rule in stopped["dnsRules"]] == ["INACTIVE"]
    started = await change(client, "faces-1", "operate", {"changeStateTo": "STARTED"})
    assert started["operationalState"] == "NOT_READY"
    asked = {"changeStateTo": "STOPPED", "stopType": "GRACEFUL"}
    assert (await change(client, "faces-1", "operate", asked))["pendingEnd"]["maxGracefulTimeout"] == 60


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("terminate", {}),
        ("terminate", {"terminationType": "SOON"}),
        ("terminate", {"terminationType": "FORCEFUL", "gracefulTerminationTimeout": 5}),
        ("terminate", {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 0}),
        ("operate", {"changeStateTo": "STARTED", "stopType": "GRACEFUL"}),
        ("operate", {"changeStateTo": "STOPPED", "gracefulStopTimeout": 5}),
    ],
)
async def test_refuses_an_end_that_contradicts_itself(client, app_id, what, body):
    await change(client, app_id, what, body, status=400)
    assert await state_of(client, app_id) == "NOT_READY"


async def test_only_a_terminated_instance_is_removed_unless_forced_and_its_client_goes_with_it(client, host):
    await create(client, appInstanceId="greeter-1")
    assert (await client.delete(f"{INSTANCES}/greeter-1")).status == 409
    await change(client, "greeter-1", "terminate", {"terminationType": "FORCEFUL"})
    assert (await client.delete(f"{INSTANCES}/greeter-1")).status == 204
    assert (await client.get(f"{INSTANCES}/greeter-1")).status == 404
    assert host.credentials.all() == []
    await create(client, appInstanceId="greeter-1")
    assert (await client.delete(f"{INSTANCES}/greeter-1?force=true")).status == 204


async def test_a_client_that_was_there_before_its_instance_stays_behind_it(client, host):
    await host.credentials.create([], "owner")
    made = await create(client, clientId="owner")
    await client.delete(f"{INSTANCES}/{made['appInstanceId']}?force=true")
    assert [each.client_id for each in host.credentials.all()] == ["owner"]


async def test_instances_are_listed_by_state(client, host):
    for name in ("a", "b"):
        await create(client, appInstanceId=name)
    await host.applications.confirm_ready("b")
    answer = await client.get(f"{INSTANCES}?operational_state=READY&operational_state=STOPPED")
    assert [each["appInstanceId"] for each in await answer.json()] == ["b"]


async def test_what_applications_registered_themselves_is_listed_too(client, app_id):
    (listed,) = await (await client.get(INSTANCES)).json()
    assert listed["appInstanceId"] == app_id
    assert "clientId" not in listed


@pytest.mark.parametrize("method", ["get", "delete"])
async def test_an_unknown_instance_is_not_found(client, method):
    assert (await getattr(client, method)(f"{INSTANCES}/unknown")).status == 404


async def test_registrations_of_an_instance_that_the_operator_made_describe_it(client, host):
    await host.applications.register(AppDescription(name="made"), app_instance_id="made-1")
    message = {"appName": "greeter", "appDId": "descriptor-2", "isInsByMec": True, "appInstanceId": "made-1"}
    response = await client.post(f"{APPS}/registrations", json=message)
    assert response.status == 201
    assert urlsplit(response.headers["Location"]).path == f"{APPS}/registrations/made-1"
    assert await response.json() == message
    assert len(host.applications.all()) == 1


async def test_a_registration_is_replaced(client, app_id, host):
    path = f"{APPS}/registrations/{app_id}"
    before = host.applications.get(app_id)
    response = await client.put(path, json={"appName": "other", "appProvider": "someone", "appInstanceId": "x"})
    assert (response.status, await response.read()) == (204, b"")
    read = await (await client.get(path)).json()
    assert (read["appName"], read["appProvider"], read["appInstanceId"]) == ("other", "someone", app_id)
    after = host.applications.get(app_id)
    assert (after.state, after.locality) == (before.state, before.locality)
    assert (await client.put(path, json={"appProvider": "x"})).status == 400
    assert (await client.put(f"{APPS}/registrations/unknown", json={"appName": "x"})).status == 404


async def test_an_ended_instance_confirms_readiness_no_more(client, host):
    await create(client, appInstanceId="greeter-1")
    await change(client, "greeter-1", "operate", {"changeStateTo": "STOPPED"})
    ready = await client.post(f"{APPS}/applications/greeter-1/confirm_ready", json={"indication": "READY"})
    assert ready.status == 409
    assert host.applications.get("greeter-1").state is AppState.STOPPED
