"""Subscriptions to one's own termination (ETSI GS MEC 011 clause 7.1.3.2): their messages, to and from the domain."""

from __future__ import annotations

from typing import Any, Literal

from mec_platform.domain.credentials import Scope
from mec_platform.domain.subscriptions import Subscription, Topic
from mec_platform.enablement_api.notifications.messages import AppTerminationNotification
from mec_platform.enablement_api.notifications.resources import SubscriptionApi
from mec_platform.enablement_api.notifications.subscription_messages import SubscriptionAnswer, SubscriptionRequest
from mec_platform.enablement_api.problem_details import BadRequest


class TerminationSubscriptionRequest(SubscriptionRequest, frozen=True, kw_only=True, rename="camel"):
    """AppTerminationNotificationSubscription as it is posted; the instance is the one of the path."""

    subscription_type: Literal["AppTerminationNotificationSubscription"]
    app_instance_id: str


class TerminationSubscription(SubscriptionAnswer, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """AppTerminationNotificationSubscription as it is answered."""

    subscription_type: Literal["AppTerminationNotificationSubscription"]
    app_instance_id: str


def to_subscription(message: TerminationSubscriptionRequest, app_instance_id: str, platform_uri: str) -> Subscription:
    """A subscription that has no id yet. Raises BadRequest where it is about another application instance."""
    if message.app_instance_id != app_instance_id:
        raise BadRequest(f"appInstanceId must be that of the path, {app_instance_id}")
    return Subscription(
        subscription_id="",
        app_instance_id=app_instance_id,
        topic=Topic.APP_TERMINATION,
        delivery=message.to_delivery(),
        platform_uri=platform_uri,
    )


def from_subscription(subscription: Subscription, shared: dict[str, Any]) -> TerminationSubscription:
    """The answer; `shared` are the attributes of `SubscriptionAnswer`."""
    return TerminationSubscription(
        subscription_type="AppTerminationNotificationSubscription",
        app_instance_id=subscription.app_instance_id,
        **shared,
    )


TERMINATION_SUBSCRIPTIONS = SubscriptionApi(
    topic=Topic.APP_TERMINATION,
    scope=Scope.APP_SUPPORT,
    tag="Application support",
    noun="Termination",
    request=TerminationSubscriptionRequest,
    answer=TerminationSubscription,
    notification=AppTerminationNotification,
    read=to_subscription,
    write=from_subscription,
)
