"""The application support API, field by field."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from mec_platform.domain.applications import AppState

APPS = "/mec_app_support/v2"
SERVICES = "/mec_service_mgmt/v1"

APP_INFO = {
    "appName": "greeter",
    "appProvider": "someone",
    "appCategory": {"href": "urn:cat", "id": "cat-1", "name": "Greetings", "version": "1"},
    "appDId": "descriptor-1",
    "endpoint": {"addresses": [{"host": "192.0.2.1", "port": 8080}]},
    "appServiceRequired": [{"serName": "weather", "version": "1.0", "serTransportDependencies": [{"labels": ["a"]}]}],
    "appServiceOptional": [{"serName": "news", "version": "2.0", "requestedPermissions": "read"}],
    "appFeatureRequired": [{"featureName": "UserApps", "version": "1"}],
    "appFeatureOptional": [{"featureName": "UEIdentity", "version": "1"}],
    "appProfile": {"easId": "eas-1"},
    "isInsByMec": False,
}


async def test_registers_an_application_and_returns_all_that_it_said(client):
    response = await client.post(f"{APPS}/registrations", json=APP_INFO)
    assert response.status == 201
    assert response.content_type == "application/json"
    app = await response.json()
    assert app == APP_INFO | {"appInstanceId": app["appInstanceId"]}
    location = urlsplit(response.headers["Location"])
    assert location.path == f"{APPS}/registrations/{app['appInstanceId']}"
    read = await client.get(location.path)
    assert (read.status, await read.json()) == (200, app)


async def test_a_name_is_all_that_a_registration_needs(client):
    response = await client.post(f"{APPS}/registrations", json={"appName": "greeter"})
    app = await response.json()
    assert app == {"appInstanceId": app["appInstanceId"], "appName": "greeter", "isInsByMec": False}


async def test_the_instance_id_is_the_platforms(client):
    response = await client.post(f"{APPS}/registrations", json={"appName": "greeter", "appInstanceId": "mine"})
    assert response.status == 201
    assert (await response.json())["appInstanceId"] != "mine"


@pytest.mark.parametrize(
    ("body", "attribute"),
    [
        ({}, "appName"),
        ({"appName": ""}, "appName"),
        ({"appName": 7}, "appName"),
        ({"appName": "a", "endpoint": {}}, "endpoint"),
        ({"appName": "a", "endpoint": {"uris": [], "fqdn": []}}, "endpoint"),
        ({"appName": "a", "endpoint": {"addresses": [{"host": "h", "port": 65536}]}}, "port"),
        ({"appName": "a", "appCategory": {"id": "only"}}, "appCategory"),
        ({"appName": "a", "appServiceRequired": [{"serName": "x"}]}, "appServiceRequired"),
        ({"appName": "a", "appProfile": "text"}, "appProfile"),
    ],
)
async def test_refuses_a_registration_and_names_the_attribute(client, body, attribute):
    response = await client.post(f"{APPS}/registrations", json=body)
    assert response.status == 400
    assert attribute in (await response.json())["detail"]


async def test_deregistering_removes_the_application_and_its_services(client, app_id, service):
    response = await client.delete(f"{APPS}/registrations/{app_id}")
    assert (response.status, await response.read()) == (204, b"")
    assert (await client.get(f"{APPS}/registrations/{app_id}")).status == 404
    assert (await client.get(f"{SERVICES}/services/{service['serInstanceId']}")).status == 404
    assert (await client.delete(f"{APPS}/registrations/{app_id}")).status == 404


async def test_confirms_readiness_as_often_as_the_application_likes(client, app_id, host):
    for _ in range(2):
        response = await client.post(f"{APPS}/applications/{app_id}/confirm_ready", json={"indication": "READY"})
        assert (response.status, await response.read()) == (204, b"")
    assert host.applications.get(app_id).state is AppState.READY


@pytest.mark.parametrize("body", [{}, {"indication": "MAYBE"}, {"indication": None}])
async def test_readiness_has_one_word(client, app_id, body):
    response = await client.post(f"{APPS}/applications/{app_id}/confirm_ready", json=body)
    assert response.status == 400


@pytest.mark.parametrize("app_instance_id", ["5e1bd1a1-32d4-4d5e-9f4b-6a3c7b2f8d10", "no-uuid", "%C3%A4", "%00"])
async def test_an_unknown_application_is_not_found_whatever_its_id_looks_like(client, app_instance_id):
    confirmation = await client.post(
        f"{APPS}/applications/{app_instance_id}/confirm_ready", json={"indication": "READY"}
    )
    assert confirmation.status == 404
    assert (await client.get(f"{APPS}/registrations/{app_instance_id}")).status == 404
