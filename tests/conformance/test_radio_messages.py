"""What subscribers of MEC 012 are sent, and what they are answered, against the schemas of the standard's files."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mec_platform.domain.subscriptions import Delivery, ExpiryAnnounced, Notification, Subscription, Topic
from mec_platform.enablement_api.exchange import LinkType
from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT, write_body
from mec_platform.enablement_api.notifications.subscription_messages import SelfLink
from mec_platform.enablement_api.radio_information.notification_messages import write_happening
from mec_platform.enablement_api.radio_information.subscription_messages import (
    RadioSubscriptionRequest,
    make_answer,
    with_defaults,
)
from mec_platform.radio.radio_state import RadioState
from tests.conformance.answers import errors_of
from tests.conformance.specifications import WHERE, Specification, wire_specifications
from tests.enablement_api.radio.wishes import ASSOCIATE, ECGI, KINDS, wish

URI = "http://192.0.2.2:8081/rni/v2/subscriptions/1"


def radio_files() -> list[Specification]:
    files = [each for each in wire_specifications() if each.root == RADIO_INFORMATION_ROOT]
    if not files:
        pytest.skip(WHERE)
    return files


def complaints(schema: str, message: dict[str, Any]) -> list[str]:
    found = []
    for file in radio_files():
        # allOf of a type and itself inside a oneOf of both: a schema that refers to itself without end.
        components = {**file.document["components"]["schemas"], "InlineNotification": {}, "InlineSubscription": {}}
        own = Specification(file.file, file.root, {**file.document, "components": {"schemas": components}})
        found += errors_of(file.file, own.validator_of({"$ref": f"#/components/schemas/{schema}"}), message)
    return found


def subscription(kind: str) -> Subscription:
    return Subscription(
        subscription_id="1",
        app_instance_id="",
        topic=Topic(f"{kind}Subscription"),
        delivery=Delivery(callback_uri="http://192.0.2.1/"),
        platform_uri="http://192.0.2.2:8081",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_notification_fits_the_files(kind):
    before, cause = KINDS[kind]
    state = RadioState()
    for report in before:
        state.apply(report, 1)
    (happening, *_) = state.apply(cause, 2_000_000_003)
    notification = Notification(subscription_id="1", sequence=7, radio=write_happening(happening))
    message = json.loads(write_body(subscription(kind), notification))
    assert message["_links"]["subscription"]["href"] == URI
    assert complaints(f"{kind}Notification", message) == []
    assert complaints(f"{kind}Notification", message | {"timeStamp": 2}) != []


def test_an_announced_end_fits_the_files():
    announced = ExpiryAnnounced(at_unix_ns=2_000_000_003, deadline_unix_ns=30_000_000_000)
    notification = Notification(subscription_id="1", sequence=7, expiry=announced)
    assert complaints("ExpiryNotification", json.loads(write_body(subscription("CellChange"), notification))) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_subscription_fits_the_files_with_every_criterion(kind):
    criteria: dict[str, dict[str, Any]] = {
        "CellChange": {"associateId": [ASSOCIATE], "ecgi": [ECGI], "hoStatus": [1, 3], "appInstanceId": "app-1"},
        "RabEst": {"ecgi": [ECGI], "appInstanceId": "app-1"},
        "MeasRepUe": {"associateId": [ASSOCIATE], "ecgi": [ECGI], "trigger": [0, 61]},
        "NrMeasRepUe": {
            "associateId": [ASSOCIATE],
            "nrcgi": [{"plmn": ECGI["plmn"], "nrcellId": "5C4225714"}],
            "triggerNr": [1],
        },
        "S1Bearer": {"associateId": [ASSOCIATE], "ecgi": [ECGI], "erabId": [5]},
    }
    posted = wish(kind, **criteria.get(kind, {})) | {"callbackReference": "http://192.0.2.1/"}
    assert complaints(f"{kind}Subscription", posted) == []
    shared = {"callback_reference": "http://192.0.2.1/", "links": SelfLink(LinkType(URI))}
    request: RadioSubscriptionRequest = msgspec.convert(posted, RadioSubscriptionRequest)
    answer = json.loads(msgspec.json.encode(make_answer(with_defaults(request), shared)))
    assert complaints(f"{kind}Subscription", answer) == []
