"""The subscription resources of both APIs against the flat wire shape of the standard."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from mec_platform.domain.applications import OperationAction

SERVICES = "/mec_service_mgmt/v1"
APPS = "/mec_app_support/v2"

CATEGORY = {"href": "urn:cat", "id": "cat-1", "name": "Greetings", "version": "1"}


async def test_a_new_subscription_is_answered_whole(client, app_id, subscription, receiver):
    path = f"{SERVICES}/applications/{app_id}/subscriptions"
    response = await client.post(path, json=subscription)
    assert response.status == 201
    location = response.headers["Location"]
    assert urlsplit(location).path.startswith(f"{path}/")
    answer = await response.json()
    assert answer == subscription | {"_links": {"self": {"href": location}}}
    assert await (await client.get(urlsplit(location).path)).json() == answer
    assert not receiver.has_more


async def test_a_termination_subscription_is_answered_whole(client, app_id, termination_subscription):
    path = f"{APPS}/applications/{app_id}/subscriptions"
    response = await client.post(path, json=termination_subscription)
    assert response.status == 201
    location = response.headers["Location"]
    answer = await response.json()
    assert answer == termination_subscription | {"_links": {"self": {"href": location}}}
    assert await (await client.get(urlsplit(location).path)).json() == answer


async def test_subscriptions_are_listed_as_links_in_the_order_in_which_they_came(client, app_id, subscription):
    path = f"{SERVICES}/applications/{app_id}/subscriptions"
    locations = [(await client.post(path, json=subscription)).headers["Location"] for _ in range(3)]
    links = (await (await client.get(path)).json())["_links"]
    assert urlsplit(links["self"]["href"]).path == path
    kind = "SerAvailabilityNotificationSubscription"
    assert links["subscriptions"] == [{"href": each, "rel": kind, "subscriptionType": kind} for each in locations]


async def test_each_api_knows_its_own_subscriptions(client, app_id, subscription, termination_subscription):
    availability, termination = (f"{root}/applications/{app_id}/subscriptions" for root in (SERVICES, APPS))
    location = (await client.post(availability, json=subscription)).headers["Location"]
    other = (await client.post(termination, json=termination_subscription)).headers["Location"]
    assert len((await (await client.get(availability)).json())["_links"]["subscriptions"]) == 1
    assert len((await (await client.get(termination)).json())["_links"]["subscriptions"]) == 1
    assert (await client.get(urlsplit(location).path.replace(SERVICES, APPS))).status == 404
    assert (await client.delete(urlsplit(other).path.replace(APPS, SERVICES))).status == 404


async def test_ending_a_subscription(client, app_id, subscription):
    path = f"{SERVICES}/applications/{app_id}/subscriptions"
    own = urlsplit((await client.post(path, json=subscription)).headers["Location"]).path
    assert (await client.delete(own)).status == 204
    assert (await client.get(own)).status == 404
    assert (await client.delete(own)).status == 404
    assert (await (await client.get(path)).json())["_links"]["subscriptions"] == []


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("root", [SERVICES, APPS])
async def test_an_unknown_application_has_no_subscriptions(client, root, method):
    response = await client.request(method, f"{root}/applications/nobody/subscriptions", json={"any": "thing"})
    assert response.status == 404
    assert response.content_type == "application/problem+json"


async def test_subscriptions_of_another_application_are_not_found(client, app_id, subscription):
    location = (await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=subscription)).headers[
        "Location"
    ]
    other = await (await client.post(f"{APPS}/registrations", json={"appName": "other"})).json()
    foreign = urlsplit(location).path.replace(app_id, other["appInstanceId"])
    assert (await client.get(foreign)).status == 404
    assert (await client.delete(foreign)).status == 404


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"serInstanceIds": ["a", "b"], "states": ["ACTIVE", "SUSPENDED"], "isLocal": True},
        {"serNames": ["greeting"]},
        {"serCategories": [CATEGORY]},
        {"serNames": [], "states": []},
        {"isLocal": False},
    ],
)
async def test_criteria_come_back_as_they_were_sent(client, app_id, subscription, criteria):
    sent = subscription | {"filteringCriteria": criteria}
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=sent)
    assert (await response.json())["filteringCriteria"] == criteria


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"subscriptionType": "AppTerminationNotificationSubscription"}, "subscriptionType"),
        ({"subscriptionType": None}, "subscriptionType"),
        ({"callbackReference": None}, "callbackReference"),
        ({"callbackReference": ""}, "callbackReference"),
        ({"callbackReference": "not a uri"}, "callbackReference"),
        ({"callbackReference": "ftp://127.0.0.1/"}, "callbackReference"),
        ({"callbackReference": "http://user:pw@127.0.0.1/"}, "credentials"),
        ({"callbackReference": None, "websockNotifConfig": {"requestWebsocketUri": False}}, "callbackReference"),
        ({"filteringCriteria": {"serNames": ["a"], "serInstanceIds": ["b"]}}, "exclude each other"),
        ({"filteringCriteria": {"serNames": ["a"], "serCategories": [CATEGORY]}}, "exclude each other"),
        ({"filteringCriteria": {"serNames": "a"}}, "serNames"),
        ({"filteringCriteria": {"states": ["RUNNING"]}}, "states"),
        ({"filteringCriteria": {"isLocal": "yes"}}, "isLocal"),
        ({"filteringCriteria": {"serCategories": [{"id": "x"}]}}, "serCategories"),
    ],
)
async def test_refuses_a_subscription_and_says_what_is_wrong(client, app_id, subscription, change, hint):
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=subscription | change)
    assert response.status == 400
    assert hint in (await response.json())["detail"]


async def test_a_callback_that_policy_forbids_is_403_and_says_who_can_allow_it(client, app_id, subscription):
    forbidden = subscription | {"callbackReference": "http://169.254.7.7:8080/"}
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=forbidden)
    assert response.status == 403
    assert "--callback-allow 169.254.7.7" in (await response.json())["detail"]


async def test_a_termination_subscription_is_about_the_application_of_its_path(
    client, app_id, termination_subscription
):
    path = f"{APPS}/applications/{app_id}/subscriptions"
    for wrong in ({"appInstanceId": "somebody-else"}, {"appInstanceId": None}):
        response = await client.post(path, json=termination_subscription | wrong)
        assert response.status == 400
        assert "appInstanceId" in (await response.json())["detail"]


async def test_ignores_attributes_that_only_the_platform_writes(client, app_id, subscription):
    read_only = {"_links": {"self": {"href": "mine"}}, "subscriptionId": "mine"}
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=subscription | read_only)
    assert response.status == 201
    assert (await response.json())["_links"]["self"]["href"] == response.headers["Location"]


async def test_of_two_ways_the_websocket_is_taken_and_answered_alone(client, app_id, subscription):
    both = subscription | {"websockNotifConfig": {"requestWebsocketUri": True}}
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=both)
    answer = await response.json()
    assert "callbackReference" not in answer
    own = urlsplit(response.headers["Location"])
    assert answer["websockNotifConfig"] == {"websocketUri": f"ws://{own.netloc}/websockets{own.path}"}


async def test_the_subscriptions_of_a_terminated_application_end(client, host, app_id, subscription):
    path = f"{SERVICES}/applications/{app_id}/subscriptions"
    own = urlsplit((await client.post(path, json=subscription)).headers["Location"]).path
    await host.applications.request_end(app_id, OperationAction.TERMINATING, 0)
    assert (await client.get(own)).status == 404
    assert (await client.post(path, json=subscription)).status == 409
