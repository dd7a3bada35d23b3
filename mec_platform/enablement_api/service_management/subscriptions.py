"""Subscriptions to the availability of services (ETSI GS MEC 011 clause 8.1.3.2): their messages, to and from the domain."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from mec_platform.domain.credentials import Scope
from mec_platform.domain.services import JsonText, ServiceState
from mec_platform.domain.subscriptions import AvailabilityFilter, Subscription, Topic
from mec_platform.enablement_api.endpoints import CategoryRefMessage
from mec_platform.enablement_api.notifications.messages import ServiceAvailabilityNotification
from mec_platform.enablement_api.notifications.resources import SubscriptionApi
from mec_platform.enablement_api.notifications.subscription_messages import SubscriptionAnswer, SubscriptionRequest
from mec_platform.enablement_api.schema_rules import Rule, at_most_one_of


class FilteringCriteria(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Attributes AND, values of a list OR. An absent attribute and an empty list match everything, as in queries; of the
    three identities one may be present."""

    ser_instance_ids: list[str] | None = None
    ser_names: list[str] | None = None
    ser_categories: list[CategoryRefMessage] | None = None
    states: list[ServiceState] | None = None
    is_local: bool | None = None

    schema_rule: ClassVar[Rule] = at_most_one_of("serInstanceIds", "serNames", "serCategories")

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.ser_instance_ids, self.ser_names, self.ser_categories)) > 1:
            raise ValueError("serInstanceIds, serNames and serCategories exclude each other")

    def to_filter(self) -> AvailabilityFilter:
        """The domain's filter."""
        return AvailabilityFilter(
            service_ids=_values(self.ser_instance_ids),
            names=_values(self.ser_names),
            category_ids=_values(self.ser_categories and [each.id for each in self.ser_categories]),
            states=_values(self.states),
            is_local=self.is_local,
        )


class AvailabilitySubscriptionRequest(SubscriptionRequest, frozen=True, kw_only=True, rename="camel"):
    """SerAvailabilityNotificationSubscription as it is posted."""

    subscription_type: Literal["SerAvailabilityNotificationSubscription"]
    filtering_criteria: FilteringCriteria | None = None


class AvailabilitySubscription(SubscriptionAnswer, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """SerAvailabilityNotificationSubscription as it is answered; the criteria are as they were sent."""

    subscription_type: Literal["SerAvailabilityNotificationSubscription"]
    filtering_criteria: FilteringCriteria | None = None


def to_subscription(message: AvailabilitySubscriptionRequest, app_instance_id: str, platform_uri: str) -> Subscription:
    """A subscription that has no id yet."""
    criteria = message.filtering_criteria
    return Subscription(
        subscription_id="",
        app_instance_id=app_instance_id,
        topic=Topic.SERVICE_AVAILABILITY,
        delivery=message.to_delivery(),
        filter=AvailabilityFilter() if criteria is None else criteria.to_filter(),
        criteria_text=None if criteria is None else JsonText(msgspec.json.encode(criteria).decode()),
        platform_uri=platform_uri,
    )


def from_subscription(subscription: Subscription, shared: dict[str, Any]) -> AvailabilitySubscription:
    """The answer; `shared` are the attributes of `SubscriptionAnswer`."""
    text = subscription.criteria_text
    return AvailabilitySubscription(
        subscription_type="SerAvailabilityNotificationSubscription",
        filtering_criteria=None if text is None else msgspec.json.decode(text, type=FilteringCriteria),
        **shared,
    )


def _values(values: list[Any] | None) -> frozenset[Any] | None:
    return frozenset(values) if values else None


AVAILABILITY_SUBSCRIPTIONS = SubscriptionApi(
    topic=Topic.SERVICE_AVAILABILITY,
    scope=Scope.SERVICE_MANAGEMENT,
    tag="Service management",
    noun="Availability",
    request=AvailabilitySubscriptionRequest,
    answer=AvailabilitySubscription,
    notification=ServiceAvailabilityNotification,
    read=to_subscription,
    write=from_subscription,
)
