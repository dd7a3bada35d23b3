"""Subscriptions of MEC 012 from the report of a RAN to a real receiver: every type, filters, replacement, expiry, ownership."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from mec_platform.domain.applications import AppDescription
from mec_platform.radio.reports import HandoverReported, UeReport
from mec_platform.radio.values import HandoverStatus
from tests.enablement_api.radio.conftest import SUBSCRIPTIONS
from tests.enablement_api.radio.wishes import ASSOCIATE, ECGI, KINDS, TOLD, wish
from tests.radio.reporting import UE, A, B, measured, ue

SOURCE = "a test"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_type_of_subscription_is_told_of_what_it_is_for_and_of_nothing_else(
    network, subscribe, receiver, clock, kind
):
    for other in KINDS:
        if other != kind:
            await subscribe(wish(other), callbackReference=f"{receiver.url}/other")
    before, cause = KINDS[kind]
    for report in before:
        network.take(report, SOURCE)
    answer = await subscribe(wish(kind))
    network.take(cause, SOURCE)
    received = await receiver.next()
    while received.message["notificationType"] != f"{kind}Notification":
        received = await receiver.next()
    message = received.message
    seconds, nano_seconds = divmod(clock.unix_ns(), 10**9)
    assert message["timeStamp"] == {"seconds": seconds, "nanoSeconds": nano_seconds}
    assert message["_links"] == {"subscription": {"href": answer["_links"]["self"]["href"]}}
    assert kind == "S1Bearer" or message["associateId"] == [ASSOCIATE]
    assert {name: message[name] for name in TOLD[kind]} == TOLD[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_subscription_is_answered_as_it_was_posted_whenever_it_is_asked_for(client, subscribe, receiver, kind):
    wished = wish(kind)
    deadline = {"seconds": 4102444800, "nanoSeconds": 5}
    answer = await subscribe(wished, expiryDeadline=deadline)
    expected = wished | {"callbackReference": receiver.url, "expiryDeadline": deadline, "_links": answer["_links"]}
    if kind == "CellChange":
        expected["filterCriteriaAssocHo"] = {"hoStatus": [3]}
    assert answer == expected
    assert await (await client.get(urlsplit(answer["_links"]["self"]["href"]).path)).json() == answer


async def test_filters_of_ues_and_cells_and_statuses_narrow_what_is_told(network, subscribe, receiver):
    for criteria in (
        {"associateId": [{"type": 1, "value": "198.51.100.8"}]},
        {"ecgi": [{**ECGI, "cellId": "000000000"}]},
        {"hoStatus": [1]},
        {"hoStatus": [1, 3], "ecgi": [ECGI], "associateId": [ASSOCIATE]},
    ):
        await subscribe(wish("CellChange", **criteria))
    preparation = HandoverReported(UE, A, status=HandoverStatus.IN_PREPARATION, targets=(B,))
    for report in (UeReport(UE, A), preparation, UeReport(UE, B)):
        network.take(report, SOURCE)
    told = [(await receiver.next()).message for _ in range(3)]
    assert sorted(each["hoStatus"] for each in told) == [1, 1, 3]
    assert not receiver.has_more


async def test_measurements_are_paced_and_the_rest_is_in_order(network, subscribe, receiver, clock):
    await subscribe(wish("NrMeasRepUe"))
    await subscribe(wish("CellChange"))
    for number in range(40):
        network.take(measured(-90 + number % 2), SOURCE)
        clock.now_s += 0.05
    network.take(measured(cell=B), SOURCE)
    told = [(await receiver.next()).message["notificationType"] for _ in range(4)]
    assert sorted(told) == ["CellChangeNotification", *["NrMeasRepUeNotification"] * 3]


async def test_websockets_carry_them_too(client, network, subscribe):
    answer = await subscribe(wish("NrMeasRepUe"), websockNotifConfig={"requestWebsocketUri": True})
    assert "callbackReference" not in answer
    network.take(measured(), SOURCE)
    async with client.session.ws_connect(answer["websockNotifConfig"]["websocketUri"]) as socket:
        assert (await socket.receive_json())["notificationType"] == "NrMeasRepUeNotification"
        assert (await client.delete(urlsplit(answer["_links"]["self"]["href"]).path)).status == 204
        assert (await socket.receive()).data == 1000


async def test_a_requested_test_notification_comes_first(network, subscribe, receiver):
    await subscribe(wish("NrMeasRepUe"), requestTestNotification=True)
    network.take(measured(), SOURCE)
    told = [(await receiver.next()).message["notificationType"] for _ in range(2)]
    assert told == ["TestNotification", "NrMeasRepUeNotification"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"subscriptionType": "Nonsense"}, "Nonsense"),
        ({"subscriptionType": "CellChangeSubscription"}, "filterCriteriaAssocHo"),
        (wish("CellChange"), "callbackReference or websockNotifConfig"),
        (wish("CellChange", hoStatus=[6]), "hoStatus"),
        (wish("CellChange", associateId=[{"type": 1, "value": "nowhere"}]), "associateId"),
        (wish("CellChange", ecgi=[{"plmn": {"mcc": "1", "mnc": "01"}, "cellId": "5C4225714"}]), "PLMN"),
        (wish("RabMod") | {"filterCriteriaQci": {"qci": 9}}, "erabId"),
        (wish("RabMod", erabId=16), "erabId"),
        (wish("S1Bearer") | {"eventType": []}, "eventType"),
        (wish("S1Bearer") | {"eventType": [0]}, "eventType"),
        (wish("NrMeasRepUe", nrcgi=[{"plmn": {"mcc": "001", "mnc": "01"}}]), "nrcellId"),
        (wish("MeasTa") | {"callbackReference": "http://127.0.0.1:9/", "expiryDeadline": {"seconds": 1, "nanoSeconds": 0}}, "over"),
    ],
)  # fmt: skip
async def test_what_cannot_be_subscribed_to_is_refused_with_what_is_wrong(client, body, complaint):
    response = await client.post(SUBSCRIPTIONS, json=body)
    assert response.status == 400
    assert complaint in (await response.json())["detail"]


async def test_the_list_has_links_by_type(client, subscribe):
    made = {kind: await subscribe(wish(kind)) for kind in ("CellChange", "MeasTa")}
    for query, kinds in (("", ["CellChange", "MeasTa"]), ("?subscription_type=timing_advance_ue", ["MeasTa"])):
        links = (await (await client.get(SUBSCRIPTIONS + query)).json())["_links"]
        assert links["self"]["href"].endswith(SUBSCRIPTIONS)
        assert links["subscription"] == [
            {"href": made[kind]["_links"]["self"]["href"], "subscriptionType": f"{kind}Subscription"} for kind in kinds
        ]
    assert (await client.get(f"{SUBSCRIPTIONS}?subscription_type=everything")).status == 400


async def test_a_replaced_subscription_tells_what_its_new_criteria_say(client, network, subscribe, receiver):
    answer = await subscribe(wish("NrMeasRepUe"))
    path = urlsplit(answer["_links"]["self"]["href"]).path
    narrower = wish("NrMeasRepUe", associateId=[{"type": 0, "value": "car"}]) | {"callbackReference": receiver.url}
    response = await client.put(path, json=narrower)
    assert response.status == 200
    assert await response.json() == answer | {"filterCriteriaNrMrs": {"associateId": [{"type": 0, "value": "car"}]}}
    for each in (UE, ue("car")):
        network.take(measured(of=each), SOURCE)
    assert (await receiver.next()).message["associateId"] == [{"type": 0, "value": "car"}]
    assert not receiver.has_more


async def test_a_subscription_is_replaced_by_one_of_its_type_and_as_its_client_has_seen_it(client, subscribe, receiver):
    answer = await subscribe(wish("CellChange"))
    path = urlsplit(answer["_links"]["self"]["href"]).path
    same = wish("CellChange") | {"callbackReference": receiver.url}
    assert (await client.put(path, json=wish("MeasTa") | {"callbackReference": receiver.url})).status == 400
    assert (await client.put(path, json=same, headers={"If-Match": '"another"'})).status == 412
    tag = (await client.get(path)).headers["ETag"]
    assert (await client.put(path, json=same, headers={"If-Match": tag})).status == 200
    assert (await client.put(f"{SUBSCRIPTIONS}/unknown", json=same)).status == 404


def deadline(clock, in_s: float) -> dict[str, Any]:
    seconds, nano_seconds = divmod(clock.unix_ns() + round(in_s * 1e9), 10**9)
    return {"seconds": seconds, "nanoSeconds": nano_seconds}


async def test_an_end_is_announced_before_and_then_the_subscription_is_gone(client, host, subscribe, receiver, clock):
    ends = deadline(clock, 20)
    answer = await subscribe(wish("CellChange"), expiryDeadline=ends)
    path = urlsplit(answer["_links"]["self"]["href"]).path
    (subscription,) = host.client_subscriptions.of("")
    clock.now_s += 9.9
    await host.client_subscriptions.expire(subscription.subscription_id)
    clock.now_s += 0.1
    await host.client_subscriptions.expire(subscription.subscription_id)
    message = (await receiver.next()).message
    assert message == {
        "notificationType": "ExpiryNotification",
        "timeStamp": deadline(clock, 0),
        "expiryDeadline": ends,
        "_links": {"subscription": answer["_links"]["self"]},
    }
    assert (await client.get(path)).status == 200
    clock.now_s += 10
    await host.client_subscriptions.expire(subscription.subscription_id)
    assert (await client.get(path)).status == 404
    assert not receiver.has_more


async def test_who_asks_for_more_time_in_time_is_not_ended(client, host, subscribe, receiver, clock):
    answer = await subscribe(wish("CellChange"), expiryDeadline=deadline(clock, 20))
    path = urlsplit(answer["_links"]["self"]["href"]).path
    longer = wish("CellChange") | {"callbackReference": receiver.url, "expiryDeadline": deadline(clock, 200)}
    assert (await client.put(path, json=longer)).status == 200
    clock.now_s += 21
    (subscription,) = host.client_subscriptions.of("")
    await host.client_subscriptions.expire(subscription.subscription_id)
    assert (await client.get(path)).status == 200
    assert not receiver.has_more


async def test_a_subscription_that_names_an_application_instance_ends_with_it(client, host, subscribe):
    app = await host.applications.register(AppDescription(name="greeter"))
    answers = [await subscribe(wish("CellChange", appInstanceId=each)) for each in (app.app_instance_id, "elsewhere")]
    assert answers[0]["filterCriteriaAssocHo"]["appInstanceId"] == app.app_instance_id
    await host.applications.remove(app.app_instance_id)
    statuses = [(await client.get(urlsplit(each["_links"]["self"]["href"]).path)).status for each in answers]
    assert statuses == [404, 200]
