"""What subscribers are sent, against the schemas of the standard's files."""

from __future__ import annotations

import json

import pytest

from mec_platform.domain.applications import OperationAction
from mec_platform.domain.services import ServiceState
from mec_platform.domain.subscriptions import (
    ChangeType,
    Delivery,
    Notification,
    ServiceReference,
    Subscription,
    TerminationAnnounced,
    Topic,
)
from mec_platform.enablement_api.notifications.messages import write_body
from tests.conformance.specifications import WHERE, wire_specifications

AVAILABILITY = Notification(
    subscription_id="subscription-1",
    sequence=7,
    services=tuple(
        ServiceReference(
            change=change,
            service_id="service-1",
            app_instance_id="app-2",
            name="greeting",
            state=ServiceState.ACTIVE,
        )
        for change in ChangeType
    ),
)
TERMINATION = Notification(
    subscription_id="subscription-1",
    sequence=8,
    termination=TerminationAnnounced(action=OperationAction.TERMINATING, max_graceful_timeout_s=10),
)


@pytest.mark.parametrize(
    ("schema", "topic", "notification"),
    [
        ("ServiceAvailabilityNotification", Topic.SERVICE_AVAILABILITY, AVAILABILITY),
        ("AppTerminationNotification", Topic.APP_TERMINATION, TERMINATION),
    ],
)
def test_a_notification_fits_every_file_that_describes_it(schema, topic, notification):
    if not wire_specifications():
        pytest.skip(WHERE)
    subscription = Subscription(
        subscription_id="subscription-1",
        app_instance_id="app-1",
        topic=topic,
        delivery=Delivery(callback_uri="http://192.0.2.1/"),
        platform_uri="http://192.0.2.2:8081",
    )
    message = json.loads(write_body(subscription, notification))
    described = [each for each in wire_specifications() if schema in each.document["components"]["schemas"]]
    assert len(described) >= 2
    for specification in described:
        errors = specification.validator_of({"$ref": f"#/components/schemas/{schema}"}).iter_errors(message)
        assert [error.message for error in errors] == []
