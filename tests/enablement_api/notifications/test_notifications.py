"""What subscribers are told, over real sockets: content, filters, order, and what is theirs alone."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from aiohttp import web

from mec_platform.domain.applications import OperationAction
from mec_platform.enablement_api.notifications.callbacks import ID_HEADER

SERVICES = "/mec_service_mgmt/v1"
APPS = "/mec_app_support/v2"


async def subscribe(client, app_id, subscription) -> str:
    response = await client.post(f"{SERVICES}/applications/{app_id}/subscriptions", json=subscription)
    assert response.status == 201
    return response.headers["Location"]


async def test_a_new_service_is_announced_with_a_link_that_every_consumer_may_read(
    client, app_id, subscription, receiver, post_service
):
    own = await subscribe(client, app_id, subscription)
    service = await post_service("greeting")
    received = await receiver.next()
    link = f"{own.partition(SERVICES)[0]}{SERVICES}/services/{service['serInstanceId']}"
    assert received.message == {
        "notificationType": "SerAvailabilityNotification",
        "serviceReferences": [
            {
                "link": {"href": link},
                "serName": "greeting",
                "serInstanceId": service["serInstanceId"],
                "state": "ACTIVE",
                "changeType": "ADDED",
            }
        ],
        "_links": {"subscription": {"href": own}},
    }
    assert received.headers["Content-Type"] == "application/json"
    assert (await client.get(urlsplit(link).path)).status == 200


async def test_the_life_of_a_service_is_told_in_order(client, app_id, subscription, receiver, offer, post_service):
    service = await post_service("greeting")
    await subscribe(client, app_id, subscription)
    path = urlsplit(service["_links"]["self"]["href"]).path
    await client.put(path, json=offer | {"state": "INACTIVE"})
    await client.put(path, json=offer | {"state": "INACTIVE", "version": "2.0"})
    await client.put(path, json=offer | {"state": "ACTIVE", "version": "3.0"})
    await client.delete(path)
    received = [(await receiver.next()) for _ in range(4)]
    told = [each.message["serviceReferences"][0] for each in received]
    assert [(each["changeType"], each["state"], "link" in each) for each in told] == [
        ("STATE_CHANGED", "INACTIVE", True),
        ("ATTRIBUTES_CHANGED", "INACTIVE", True),
        ("ATTRIBUTES_CHANGED", "ACTIVE", True),
        ("REMOVED", "ACTIVE", False),
    ]
    ids = [each.headers[ID_HEADER] for each in received]
    assert len(set(ids)) == 4
    assert len({each.partition(":")[0] for each in ids}) == 1


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"serNames": ["b", "c"]}, ["b", "c"]),
        ({"serNames": []}, ["a", "b", "c", "d"]),
        ({"serCategories": [{"href": "x", "id": "cat-2", "name": "x", "version": "1"}]}, ["c"]),
        ({"states": ["INACTIVE"]}, ["d"]),
        ({"serNames": ["a", "d"], "states": ["INACTIVE"]}, ["d"]),
        ({"isLocal": True}, ["a", "b", "c", "d"]),
        ({"isLocal": False}, []),
    ],
)
async def test_criteria_say_which_changes_are_told(
    client, app_id, subscription, receiver, post_service, criteria, expected
):
    await subscribe(client, app_id, subscription | {"filteringCriteria": criteria})
    await post_service("a")
    await post_service("b")
    await post_service("c", serCategory={"href": "x", "id": "cat-2", "name": "x", "version": "1"})
    await post_service("d", state="INACTIVE")
    # What everybody is told comes last, so that nothing more than expected can have been on its way.
    await subscribe(client, app_id, subscription | {"requestTestNotification": True})
    assert sorted(await receiver.names(len(expected))) == expected
    assert (await receiver.next()).message["notificationType"] == "TestNotification"
    assert not receiver.has_more


async def test_one_service_may_be_waited_for_by_its_id(client, app_id, subscription, receiver, offer, post_service):
    service, other = await post_service("a"), await post_service("b")
    await subscribe(
        client, app_id, subscription | {"filteringCriteria": {"serInstanceIds": [service["serInstanceId"]]}}
    )
    for each in (other, service):
        await client.delete(urlsplit(each["_links"]["self"]["href"]).path)
    assert await receiver.names(1) == ["a"]


async def test_a_test_notification_comes_before_everything_else(client, app_id, subscription, receiver, post_service):
    own = await subscribe(client, app_id, subscription | {"requestTestNotification": True})
    await post_service("greeting")
    assert (await receiver.next()).message == {
        "notificationType": "TestNotification",
        "_links": {"subscription": {"href": own}},
    }
    assert await receiver.names(1) == ["greeting"]


async def test_a_termination_is_announced_with_where_to_confirm_it(
    client, host, app_id, termination_subscription, receiver
):
    response = await client.post(f"{APPS}/applications/{app_id}/subscriptions", json=termination_subscription)
    own = response.headers["Location"]
    await host.applications.request_end(app_id, OperationAction.STOPPING, 30)
    assert (await receiver.next()).message == {
        "notificationType": "AppTerminationNotification",
        "operationAction": "STOPPING",
        "maxGracefulTimeout": 30,
        "_links": {
            "subscription": {"href": own},
            "confirmTermination": {"href": f"{own.partition(APPS)[0]}{APPS}/applications/{app_id}/confirm_termination"},
        },
    }


async def test_what_ends_with_its_subscription_is_not_sent(client, app_id, subscription, receiver, post_service):
    receiver.open.clear()
    own = await subscribe(client, app_id, subscription)
    await post_service("a")
    await post_service("b")
    await receiver.next()
    await client.delete(urlsplit(own).path)
    receiver.open.set()
    await subscribe(client, app_id, subscription | {"requestTestNotification": True})
    assert (await receiver.next()).message["notificationType"] == "TestNotification"
    assert not receiver.has_more


async def test_a_target_that_refuses_makes_dead_letters_and_the_next_one_goes(
    client, host, app_id, subscription, receiver, post_service
):
    own = await subscribe(client, app_id, subscription)
    receiver.answers = [web.Response(status=410)]
    await post_service("a")
    await post_service("b")
    assert await receiver.names(2) == ["a", "b"]
    (letter,) = host.subscriptions.dead_letters()
    assert letter.notification.subscription_id == own.rpartition("/")[2]
    assert "gone for good" in letter.reason


async def test_scrapes_say_how_notifications_go(client, app_id, subscription, receiver, post_service):
    await subscribe(client, app_id, subscription)
    receiver.answers = [web.Response(status=400)]
    await post_service("a")
    await post_service("b")
    await receiver.names(2)
    await subscribe(client, app_id, subscription | {"requestTestNotification": True})
    await receiver.next()
    text = await (await client.get("/metrics")).text()
    assert 'mec_notification_attempts_total{outcome="rejected",topic="service_availability"} 1.0' in text
    assert "mec_notification_dead_letters 1.0" in text
    assert "mec_notification_attempt_seconds_count" in text
    assert "mec_notification_waiting " in text
    assert "mec_notification_oldest_wait_seconds " in text
