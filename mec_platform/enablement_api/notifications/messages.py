"""What subscribers are sent (ETSI GS MEC 011 clauses 7.1.4 and 8.1.4, MEC 012 clause 6.4, MEC 009 clause 6.12), as JSON.

A notification is the same to every subscriber but for its links: they lead to the platform under the address at which the
subscriber reached it.
"""

from __future__ import annotations

import msgspec

from mec_platform.domain.applications import OperationAction
from mec_platform.domain.services import ServiceState
from mec_platform.domain.subscriptions import RADIO_TOPICS, ChangeType, Notification, Subscription, Topic
from mec_platform.enablement_api.exchange import LinkType, absolute_uri
from mec_platform.enablement_api.notifications.subscription_messages import SubscriptionLinks
from mec_platform.enablement_api.radio_information.notification_messages import (
    ExpiryNotification,
    RadioNotification,
    read_radio_notification,
)
from mec_platform.enablement_api.radio_information.values import from_unix_ns

APP_SUPPORT_ROOT = "/mec_app_support/v2"
SERVICE_MANAGEMENT_ROOT = "/mec_service_mgmt/v1"
RADIO_INFORMATION_ROOT = "/rni/v2"

ROOTS = {Topic.APP_TERMINATION: APP_SUPPORT_ROOT, Topic.SERVICE_AVAILABILITY: SERVICE_MANAGEMENT_ROOT}
"""The API at which each topic is subscribed to."""

_TYPE = "notificationType"


class ServiceReferenceMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service whose availability changed; a removed one has no link."""

    link: LinkType | None = None
    ser_name: str
    ser_instance_id: str
    state: ServiceState
    change_type: ChangeType


class ServiceAvailabilityNotification(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, tag="SerAvailabilityNotification"
):
    """Clause 8.1.4.2."""

    service_references: list[ServiceReferenceMessage]
    links: SubscriptionLinks = msgspec.field(name="_links")


class TerminationLinks(msgspec.Struct, frozen=True, rename="camel"):
    """Where to confirm, beside the subscription."""

    subscription: LinkType
    confirm_termination: LinkType


class AppTerminationNotification(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, tag="AppTerminationNotification"
):
    """Clause 7.1.4.2. `max_graceful_timeout` is in seconds."""

    operation_action: OperationAction
    max_graceful_timeout: int
    links: TerminationLinks = msgspec.field(name="_links")


class TestNotification(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, tag="TestNotification"
):
    """MEC 009 clause 6.12: proves that notifications arrive."""

    __test__ = False

    links: SubscriptionLinks = msgspec.field(name="_links")


def subscription_path(subscription: Subscription) -> str:
    """The path of a subscription's resource."""
    if subscription.topic in RADIO_TOPICS:
        return f"{RADIO_INFORMATION_ROOT}/subscriptions/{subscription.subscription_id}"
    root = ROOTS[subscription.topic]
    return f"{root}/applications/{subscription.app_instance_id}/subscriptions/{subscription.subscription_id}"


def write_body(subscription: Subscription, notification: Notification) -> bytes:
    """The JSON that this subscriber is sent."""
    return msgspec.json.encode(make_message(subscription, notification))


NotificationMessage = (
    ServiceAvailabilityNotification
    | AppTerminationNotification
    | RadioNotification
    | ExpiryNotification
    | TestNotification
)


def make_message(subscription: Subscription, notification: Notification) -> NotificationMessage:
    """The message that this subscriber is sent."""
    base = subscription.platform_uri
    own = LinkType(absolute_uri(base, subscription_path(subscription)))
    if notification.termination is not None:
        confirm = f"{APP_SUPPORT_ROOT}/applications/{subscription.app_instance_id}/confirm_termination"
        return AppTerminationNotification(
            operation_action=notification.termination.action,
            max_graceful_timeout=notification.termination.max_graceful_timeout_s,
            links=TerminationLinks(own, LinkType(absolute_uri(base, confirm))),
        )
    if notification.radio is not None:
        told = read_radio_notification(notification.radio)
        return msgspec.structs.replace(told, links=SubscriptionLinks(own))
    if notification.expiry is not None:
        return ExpiryNotification(
            time_stamp=from_unix_ns(notification.expiry.at_unix_ns),
            expiry_deadline=from_unix_ns(notification.expiry.deadline_unix_ns),
            links=SubscriptionLinks(own),
        )
    if notification.services:
        references = [
            ServiceReferenceMessage(
                # Under /services every consumer may read it; the resource below /applications is its owner's.
                link=None
                if each.change is ChangeType.REMOVED
                else LinkType(absolute_uri(base, f"{SERVICE_MANAGEMENT_ROOT}/services/{each.service_id}")),
                ser_name=each.name,
                ser_instance_id=each.service_id,
                state=each.state,
                change_type=each.change,
            )
            for each in notification.services
        ]
        return ServiceAvailabilityNotification(service_references=references, links=SubscriptionLinks(own))
    return TestNotification(links=SubscriptionLinks(own))
